"""Injects a pod or a pod template."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from nginx_mesh.api import annotations as mesh
from nginx_mesh.api.decoding import decode_as, without_nulls
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectMeta
from nginx_mesh.api.names import label_value
from nginx_mesh.api.owners import controller
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.values import format_ports
from nginx_mesh.protocol.control import SIDECAR_UID

from .containers import (
    SOCKET_VOLUME,
    TMP_VOLUME,
    init_container,
    sidecar_container,
    sidecar_volumes,
    workload_api_mount,
    workload_api_volume,
)
from .probes import encode, rewrite
from .settings import InjectSettings

NEVER_INJECTED_NAMESPACE = "kube-system"
# 8886 to 8901 and, for UDP, 8908 and 8909. All are reserved for both protocols, as UDP may be enabled later.
SIDECAR_PORTS = frozenset((*range(8886, 8902), 8908, 8909))


class InjectResult(NamedTuple):
    """A pod after injection. `reason` says why it has no sidecar."""

    pod: Resource
    injected: bool
    reason: str = ""


def inject_pod(
    pod: Resource,
    namespace_labels: Mapping[str, str],
    settings: InjectSettings,
    *,
    namespace: str = "",
    owner: tuple[str, str] | None = None,
    explicit: bool = False,
) -> InjectResult:
    """Add the sidecar to a copy of a pod, if the pod is to have one.

    `pod` is a Pod or a pod template that `kinds.decode` accepts. `namespace` is the pod's namespace, and `owner` the
    (kind, name) of its workload; both default to what its metadata says. With `explicit`, the auto-inject labels are
    ignored. Raises FieldError for a pod that its author has to change first.
    """
    metadata = pod.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if (namespace or metadata.get("namespace")) == NEVER_INJECTED_NAMESPACE:
        return InjectResult(pod, False, f"pods of {NEVER_INJECTED_NAMESPACE} are never injected")
    if mesh.is_injected(annotations) and mesh.SIDECAR_CONTAINER in _names(pod["spec"].get("containers")):
        return InjectResult(pod, True)
    if "true" in (labels.get(mesh.ENABLE_INGRESS), labels.get(mesh.ENABLE_EGRESS)):
        return InjectResult(_with_workload_api(pod), False, "gateways get an identity, but no sidecar")
    if not explicit and not mesh.wants_injection(labels, namespace_labels):
        return InjectResult(pod, False, f"label {mesh.AUTO_INJECT} is not enabled")
    obstacle = _obstacle(pod["spec"])
    if obstacle is not None:
        return InjectResult(pod, False, obstacle)
    for error in mesh.check_pod(labels, annotations):
        raise error.within("metadata")
    _check_conflicts(pod["spec"])
    if owner is None:
        owner = controller(decode_as(ObjectMeta, without_nulls(metadata)))
    return InjectResult(_with_sidecar(pod, settings, owner), True)


def _with_sidecar(pod: Resource, settings: InjectSettings, owner: tuple[str, str] | None) -> Resource:
    pod = copy.deepcopy(pod)
    metadata, spec = _mapping(pod, "metadata"), pod["spec"]
    labels, annotations = _mapping(metadata, "labels"), _mapping(metadata, "annotations")

    incoming = _ports(mesh.ignore_incoming_ports(annotations), settings.ignore_incoming_ports)
    outgoing = _ports(mesh.ignore_outgoing_ports(annotations), settings.ignore_outgoing_ports)
    # Callers have to know which ports bypass the sidecar, so the pod's annotations include the ports of the settings.
    if settings.ignore_incoming_ports:
        annotations[mesh.IGNORE_INCOMING_PORTS] = format_ports(incoming)
    if settings.ignore_outgoing_ports:
        annotations[mesh.IGNORE_OUTGOING_PORTS] = format_ports(outgoing)

    bypassing = {*incoming, *mesh.ALWAYS_IGNORED_INCOMING_PORTS}
    checked = [*(spec.get("initContainers") or ()), *spec["containers"]]
    redirects = rewrite(checked, bypassing)
    if redirects:
        annotations[mesh.PROBES] = encode(redirects)

    # After the pod's own init containers: without a sidecar, redirected traffic would reach nothing.
    _list(spec, "initContainers").append(init_container(settings, incoming, outgoing))
    spec["containers"].append(sidecar_container(settings))
    _list(spec, "volumes").extend(sidecar_volumes())

    annotations[mesh.STATUS] = mesh.INJECTED
    labels[mesh.SPIFFE_ID] = "true"
    # A name may be too long for the value of a label. The mesh then finds the owner by the pod's ownerReferences.
    if owner is not None and owner[1] and label_value(owner[1]) is None:
        labels[mesh.OWNER_PREFIX + owner[0].lower()] = owner[1]
    return pod


def _with_workload_api(pod: Resource) -> Resource:
    if SOCKET_VOLUME in _names(pod["spec"].get("volumes")):
        return pod
    pod = copy.deepcopy(pod)
    _list(pod["spec"], "volumes").append(workload_api_volume())
    mount = workload_api_mount()
    for container in pod["spec"]["containers"]:
        mounts = _list(container, "volumeMounts")
        if mount["mountPath"] not in {entry["mountPath"].rstrip("/") for entry in mounts}:
            mounts.append(dict(mount))
    return pod


def _obstacle(spec: Resource) -> str | None:
    """Why a pod can have no sidecar, None when it can."""
    if spec.get("hostNetwork"):
        return "pods in the host's network are never injected"
    seen: set[tuple[int, str]] = set()
    for port in _container_ports(spec):
        number, protocol = port["containerPort"], port.get("protocol") or "TCP"
        if protocol == "SCTP":
            return f"container port {number} is SCTP, which the sidecar does not carry"
        if (number, protocol) in seen:
            return f"container port {number}/{protocol} is declared twice"
        seen.add((number, protocol))
    return None


def _check_conflicts(spec: Resource) -> None:
    """Raise FieldError for a part of a pod that conflicts with the sidecar."""
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            path = f"spec.{field}[{index}]"
            if container["name"] in (mesh.INIT_CONTAINER, mesh.SIDECAR_CONTAINER):
                raise FieldError(f"{path}.name", f'"{container["name"]}" is the name of a container of the mesh')
            if (container.get("securityContext") or {}).get("runAsUser") == SIDECAR_UID:
                reason = f"{SIDECAR_UID} is the sidecar's user; nothing that it sends passes the mesh"
                raise FieldError(f"{path}.securityContext.runAsUser", reason)
            for number, port in enumerate(container.get("ports") or ()):
                if port["containerPort"] in SIDECAR_PORTS:
                    reason = f"{port['containerPort']} is a port of the sidecar"
                    raise FieldError(f"{path}.ports[{number}].containerPort", reason)
    if (spec.get("securityContext") or {}).get("runAsUser") == SIDECAR_UID:
        raise FieldError("spec.securityContext.runAsUser", f"{SIDECAR_UID} is the sidecar's user")
    for index, name in enumerate(_names(spec.get("volumes"))):
        if name in (SOCKET_VOLUME, TMP_VOLUME):
            raise FieldError(f"spec.volumes[{index}].name", f'"{name}" is the name of a volume of the mesh')


def _container_ports(spec: Resource) -> Iterator[Resource]:
    return (port for container in spec["containers"] for port in container.get("ports") or ())


def _names(entries: list[Resource] | None) -> list[str]:
    return [entry["name"] for entry in entries or ()]


def _ports(*given: Collection[int]) -> tuple[int, ...]:
    return tuple(sorted(set().union(*given)))


def _mapping(parent: Resource, field: str) -> Resource:
    """The mapping at a field. It is created when it is absent or null, which Kubernetes treats alike."""
    if parent.get(field) is None:
        parent[field] = {}
    return parent[field]  # type: ignore[no-any-return]


def _list(parent: Resource, field: str) -> list[Resource]:
    if parent.get(field) is None:
        parent[field] = []
    return parent[field]  # type: ignore[no-any-return]
