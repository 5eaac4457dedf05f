"""One pod, or the template of pods."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from nginx_mesh.api import annotations as mesh
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.names import label_value
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

Resource = dict[str, Any]

NEVER_INJECTED_NAMESPACE = "kube-system"
# 8886 to 8901 and, for UDP, 8908 and 8909; both protocols, as UDP may be switched on later.
SIDECAR_PORTS = frozenset((*range(8886, 8902), 8908, 8909))

_TEMPLATE_HASH = "pod-template-hash"


class InjectResult(NamedTuple):
    """A pod after injection. Without a sidecar, `reason` says why it has none."""

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
    """Give a pod its sidecar, if it is to have one. The pod that comes in stays as it is.

    `pod` is a Pod or a template whose types `kinds.decode` has found sound. `namespace` is where it goes, by default
    what its metadata says. `owner` is what makes it, as (kind, name); by default what its metadata says. `explicit`
    injects whatever the auto-inject labels say. Raises FieldError for a pod that its author has to change first.
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
    return InjectResult(_with_sidecar(pod, settings, owner or _owner(metadata)), True)


def _with_sidecar(pod: Resource, settings: InjectSettings, owner: tuple[str, str] | None) -> Resource:
    pod = copy.deepcopy(pod)
    metadata, spec = _mapping(pod, "metadata"), pod["spec"]
    labels, annotations = _mapping(metadata, "labels"), _mapping(metadata, "annotations")

    incoming = _ports(mesh.ignore_incoming_ports(annotations), settings.ignore_incoming_ports)
    outgoing = _ports(mesh.ignore_outgoing_ports(annotations), settings.ignore_outgoing_ports)
    # Callers have to know which ports bypass the sidecar, so what was asked for elsewhere stands in the pod as well.
    if settings.ignore_incoming_ports:
        annotations[mesh.IGNORE_INCOMING_PORTS] = format_ports(incoming)
    if settings.ignore_outgoing_ports:
        annotations[mesh.IGNORE_OUTGOING_PORTS] = format_ports(outgoing)

    bypassing = {*incoming, *mesh.ALWAYS_IGNORED_INCOMING_PORTS}
    checked = [*(spec.get("initContainers") or ()), *spec["containers"]]
    redirects = rewrite(checked, bypassing)
    if redirects:
        annotations[mesh.PROBES] = encode(redirects)

    # After the pod's own init containers: they run while there is no sidecar yet.
    _list(spec, "initContainers").append(init_container(settings, incoming, outgoing))
    spec["containers"].append(sidecar_container(settings))
    _list(spec, "volumes").extend(sidecar_volumes())

    annotations[mesh.STATUS] = mesh.INJECTED
    labels[mesh.SPIFFE_ID] = "true"
    # A name may be longer than a label's value can be. The mesh then finds the owner by the pod's ownerReferences.
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
    """Why a pod never gets a sidecar."""
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
    """What of a pod would break beside a sidecar."""
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


def _owner(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """What made a pod: a Deployment rather than its ReplicaSet."""
    for reference in metadata.get("ownerReferences") or ():
        if not reference.get("controller"):
            continue
        kind, name = reference["kind"], reference["name"]
        template_hash = (metadata.get("labels") or {}).get(_TEMPLATE_HASH)
        if kind == "ReplicaSet" and template_hash and name.endswith(f"-{template_hash}"):
            return "Deployment", name.removesuffix(f"-{template_hash}")
        return kind, name
    return None


def _container_ports(spec: Resource) -> Iterator[Resource]:
    return (port for container in spec["containers"] for port in container.get("ports") or ())


def _names(entries: list[Resource] | None) -> list[str]:
    return [entry["name"] for entry in entries or ()]


def _ports(*given: Collection[int]) -> tuple[int, ...]:
    return tuple(sorted(set().union(*given)))


def _mapping(parent: Resource, field: str) -> Resource:
    """The mapping at a field, made if need be: to Kubernetes null is the same as absent."""
    if parent.get(field) is None:
        parent[field] = {}
    return parent[field]  # type: ignore[no-any-return]


def _list(parent: Resource, field: str) -> list[Resource]:
    if parent.get(field) is None:
        parent[field] = []
    return parent[field]  # type: ignore[no-any-return]
