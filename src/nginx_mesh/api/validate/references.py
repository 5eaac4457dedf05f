"""Objects together: what one names must be there, and what they claim must not clash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from .. import annotations as mesh
from ..cluster import Namespace
from ..containers import Container
from ..errors import FieldError
from ..loaded import LoadedObject, ManifestError
from ..meta import Object, ObjectKey
from ..pods import Pod, PodSpec
from ..workloads import DaemonSet, Deployment, Job, ReplicaSet, ReplicationController, StatefulSet
from .checks import Errors, at, unique
from .pods import all_containers

_ALWAYS_THERE = "default"


class _PodPart(NamedTuple):
    """Where an object speaks of pods, and what it says."""

    path: str
    labels: Mapping[str, str]
    spec: PodSpec


def _no_labels(namespace: str) -> Mapping[str, str]:
    return {}


def validate_references(
    objects: Iterable[LoadedObject],
    exists: Callable[[ObjectKey], bool],
    *,
    namespace_labels: Callable[[str], Mapping[str, str]] = _no_labels,
) -> list[ManifestError]:
    """What is wrong with objects in the light of each other and of those that `exists` knows.

    A namespace, a service account, ConfigMaps and Secrets that are not optional must be among either; `default` is
    always there. `namespace_labels` tells the labels of a namespace that is not among `objects`: pods that are to be
    injected cannot have two container ports of the same number and protocol.
    """
    objects = list(objects)
    given = {loaded.object.key: loaded.object for loaded in objects}

    def known(key: ObjectKey) -> bool:
        return key in given or exists(key)

    def labels_of(namespace: str) -> Mapping[str, str]:
        found = given.get(ObjectKey("Namespace", "", namespace))
        return found.metadata.labels if isinstance(found, Namespace) else namespace_labels(namespace)

    return [
        loaded.error(error)
        for loaded in objects
        for error in (*_namespace(loaded.object, known), *_pod_part_errors(loaded.object, known, labels_of))
    ]


def pod_part(obj: Object) -> _PodPart | None:
    """The pod's spec in a Pod or in the template of a workload."""
    if isinstance(obj, Pod):
        return _PodPart("spec", obj.metadata.labels, obj.spec)
    if isinstance(obj, Deployment | ReplicaSet | StatefulSet | DaemonSet | ReplicationController | Job):
        template = obj.spec.template
        return _PodPart("spec.template.spec", template.metadata.labels, template.spec)
    return None


def _namespace(obj: Object, known: Callable[[ObjectKey], bool]) -> Errors:
    namespace = obj.metadata.namespace
    if obj.NAMESPACED and namespace != _ALWAYS_THERE and not known(ObjectKey("Namespace", "", namespace)):
        yield FieldError("metadata.namespace", f'there is no Namespace "{namespace}"')


def _pod_part_errors(
    obj: Object, known: Callable[[ObjectKey], bool], labels_of: Callable[[str], Mapping[str, str]]
) -> Errors:
    part = pod_part(obj)
    if part is None:
        return
    namespace = obj.metadata.namespace
    account = part.spec.service_account_name or _ALWAYS_THERE
    if account != _ALWAYS_THERE and not known(ObjectKey("ServiceAccount", namespace, account)):
        reason = f'there is no ServiceAccount "{account}" in namespace "{namespace}"'
        yield FieldError(f"{part.path}.serviceAccountName", reason)
    for field, kind, name in _references(part.spec):
        if not known(ObjectKey(kind, namespace, name)):
            yield FieldError(f"{part.path}.{field}", f'there is no {kind} "{name}" in namespace "{namespace}"')
    if mesh.wants_injection(part.labels, labels_of(namespace)):
        yield from at(part.path, _port_clashes(part.spec))


def _references(spec: PodSpec) -> Iterator[tuple[str, str, str]]:
    """(field, kind, name) of the ConfigMaps and Secrets that a pod cannot start without."""
    for index, volume in enumerate(spec.volumes):
        if volume.config_map is not None and not volume.config_map.optional:
            yield f"volumes[{index}].configMap.name", "ConfigMap", volume.config_map.name
        if volume.secret is not None and not volume.secret.optional:
            yield f"volumes[{index}].secret.secretName", "Secret", volume.secret.secret_name
    for path, container in all_containers(spec):
        for field, kind, name in _environment_references(container):
            yield f"{path}.{field}", kind, name


def _environment_references(container: Container) -> Iterator[tuple[str, str, str]]:
    for index, source in enumerate(container.env_from):
        for field, kind, ref in (
            ("configMapRef", "ConfigMap", source.config_map_ref),
            ("secretRef", "Secret", source.secret_ref),
        ):
            if ref is not None and not ref.optional:
                yield f"envFrom[{index}].{field}.name", kind, ref.name
    for index, variable in enumerate(container.env):
        if variable.value_from is None:
            continue
        for field, kind, selector in (
            ("configMapKeyRef", "ConfigMap", variable.value_from.config_map_key_ref),
            ("secretKeyRef", "Secret", variable.value_from.secret_key_ref),
        ):
            if selector is not None and not selector.optional:
                yield f"env[{index}].valueFrom.{field}.name", kind, selector.name


def _port_clashes(spec: PodSpec) -> Errors:
    """Two container ports of the same number and protocol, for which the sidecar could not tell who is meant."""
    ports = (
        (f"containers[{index}].ports[{number}].containerPort", (port.container_port, port.protocol))
        for index, container in enumerate(spec.containers)
        for number, port in enumerate(container.ports)
    )
    return unique("", ports)
