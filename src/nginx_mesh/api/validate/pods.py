"""Pods and the templates of pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .. import annotations as mesh
from ..containers import Container, EnvVar, HTTPGetAction, Probe, TCPSocketAction
from ..errors import FieldError
from ..meta import ObjectMeta
from ..names import data_key, http_token, label_name, port_name, port_number, subdomain_name
from ..pods import PodSpec, PodTemplateSpec
from ..volumes import Volume
from .checks import Errors, at, at_least, labels, must, one_of, unique
from .metadata import annotation_keys

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_MAX_ID = (1 << 31) - 1


class PlacedContainer(NamedTuple):
    """A container and its path inside the pod's spec."""

    path: str
    container: Container


def all_containers(spec: PodSpec) -> Iterator[PlacedContainer]:
    """Init containers and containers."""
    for field, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers):
            yield PlacedContainer(f"{field}[{index}]", container)


def pod_metadata(metadata: ObjectMeta) -> Errors:
    """Labels and annotations of a pod, the mesh's own included."""
    yield from labels("labels", metadata.labels)
    yield from annotation_keys(metadata)
    yield from mesh.check_pod(metadata.labels, metadata.annotations)


def template(spec: PodTemplateSpec, restart_policies: tuple[str, ...]) -> Errors:
    """A pod template."""
    yield from at("metadata", pod_metadata(spec.metadata))
    yield from at("spec", pod(spec.spec, restart_policies))


def pod(spec: PodSpec, restart_policies: tuple[str, ...] = ("Always", "OnFailure", "Never")) -> Errors:
    """A pod's spec."""
    if not spec.containers:
        yield FieldError("containers", "must have at least one container")
    placed = list(all_containers(spec))
    yield from unique("", ((f"{path}.name", container.name) for path, container in placed))
    volumes = {volume.name for volume in spec.volumes}
    for path, container in placed:
        yield from at(path, _container(container, volumes))
    yield from unique("volumes", ((f"[{index}].name", volume.name) for index, volume in enumerate(spec.volumes)))
    for index, volume in enumerate(spec.volumes):
        yield from at(f"volumes[{index}]", _volume(volume))
    if spec.service_account_name:
        yield from must("serviceAccountName", subdomain_name(spec.service_account_name))
    yield from one_of("restartPolicy", spec.restart_policy, restart_policies)
    yield from at_least("terminationGracePeriodSeconds", spec.termination_grace_period_seconds, 0)
    for field, name in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if name:
            yield from must(field, label_name(name))
    if spec.security_context is not None:
        context = spec.security_context
        yield from _ids(context.run_as_user, context.run_as_group, context.fs_group)


def _container(container: Container, volumes: set[str]) -> Errors:
    yield from must("name", label_name(container.name))
    named = [(f"[{index}].name", port.name) for index, port in enumerate(container.ports) if port.name]
    yield from unique("ports", named)
    for index, port in enumerate(container.ports):
        path = f"ports[{index}]"
        yield from must(f"{path}.containerPort", port_number(port.container_port))
        if port.host_port is not None:
            yield from must(f"{path}.hostPort", port_number(port.host_port))
        yield from one_of(f"{path}.protocol", port.protocol, _PROTOCOLS)
        if port.name:
            yield from must(f"{path}.name", port_name(port.name))
    for index, variable in enumerate(container.env):
        yield from at(f"env[{index}]", _env(variable))
    for index, source in enumerate(container.env_from):
        if (source.config_map_ref is None) == (source.secret_ref is None):
            yield FieldError(f"envFrom[{index}]", "must have one of configMapRef and secretRef")
    yield from _mounts(container, volumes)
    probes = (
        ("livenessProbe", container.liveness_probe),
        ("readinessProbe", container.readiness_probe),
        ("startupProbe", container.startup_probe),
    )
    for kind, probe in probes:
        if probe is not None:
            yield from at(kind, _probe(probe, container, repeats=kind == "readinessProbe"))
    if container.security_context is not None:
        yield from _ids(container.security_context.run_as_user, container.security_context.run_as_group)


def _env(variable: EnvVar) -> Errors:
    if not variable.name or "=" in variable.name:
        yield FieldError("name", f'"{variable.name}" cannot name an environment variable')
    source = variable.value_from
    if source is None:
        return
    if variable.value:
        yield FieldError("valueFrom", "cannot stand beside value")
    given = [
        source.config_map_key_ref,
        source.secret_key_ref,
        source.field_ref,
        source.resource_field_ref,
        source.file_key_ref,
    ]
    if sum(one is not None for one in given) != 1:
        choices = "configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef and fileKeyRef"
        yield FieldError("valueFrom", f"must have one of {choices}")


def _mounts(container: Container, volumes: set[str]) -> Errors:
    yield from unique(
        "volumeMounts",
        ((f"[{index}].mountPath", mount.mount_path) for index, mount in enumerate(container.volume_mounts)),
    )
    for index, mount in enumerate(container.volume_mounts):
        path = f"volumeMounts[{index}]"
        if mount.name not in volumes:
            yield FieldError(f"{path}.name", f'the pod has no volume "{mount.name}"')
        if not mount.mount_path.startswith("/") or _climbs(mount.mount_path):
            yield FieldError(f"{path}.mountPath", f'"{mount.mount_path}" must be an absolute path without ".."')
        if mount.sub_path.startswith("/") or _climbs(mount.sub_path):
            yield FieldError(f"{path}.subPath", f'"{mount.sub_path}" must be a relative path without ".."')


def _volume(volume: Volume) -> Errors:
    yield from must("name", label_name(volume.name))
    sources = {
        "configMap": volume.config_map,
        "secret": volume.secret,
        "emptyDir": volume.empty_dir,
        "csi": volume.csi,
    }
    given = [field for field, source in sources.items() if source is not None]
    if len(given) > 1:
        yield FieldError("", f"has more than one source: {' and '.join(given)}")
    for field, source in (("configMap", volume.config_map), ("secret", volume.secret)):
        if source is None:
            continue
        yield from _mode(f"{field}.defaultMode", source.default_mode)
        for index, item in enumerate(source.items):
            path = f"{field}.items[{index}]"
            yield from must(f"{path}.key", data_key(item.key))
            if not item.path or item.path.startswith("/") or _climbs(item.path):
                yield FieldError(f"{path}.path", f'"{item.path}" must be a relative path without ".."')
            if item.mode is not None:
                yield from _mode(f"{path}.mode", item.mode)


def _probe(probe: Probe, container: Container, *, repeats: bool) -> Errors:
    actions = {"httpGet": probe.http_get, "tcpSocket": probe.tcp_socket, "exec": probe.exec, "grpc": probe.grpc}
    given = [field for field, action in actions.items() if action is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        yield FieldError("", f"must have one of {', '.join(actions)}; it has {found}")
    if probe.http_get is not None:
        yield from at("httpGet", _http_get(probe.http_get, container))
    if probe.tcp_socket is not None:
        yield from at("tcpSocket", _probe_port(probe.tcp_socket, container))
    if probe.exec is not None and not probe.exec.command:
        yield FieldError("exec.command", "is required")
    if probe.grpc is not None:
        yield from must("grpc.port", port_number(probe.grpc.port))
    yield from at_least("initialDelaySeconds", probe.initial_delay_seconds, 0)
    for field, value in (
        ("periodSeconds", probe.period_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ):
        yield from at_least(field, value, 1)
    if probe.success_threshold > 1 and not repeats:
        yield FieldError("successThreshold", "must be 1 for this probe")


def _http_get(action: HTTPGetAction, container: Container) -> Errors:
    yield from one_of("scheme", action.scheme, ("HTTP", "HTTPS"))
    yield from _probe_port(action, container)
    for index, header in enumerate(action.http_headers):
        yield from must(f"httpHeaders[{index}].name", http_token(header.name))


def _probe_port(action: HTTPGetAction | TCPSocketAction, container: Container) -> Errors:
    if isinstance(action.port, int):
        yield from must("port", port_number(action.port))
    elif action.port not in {port.name for port in container.ports if port.name}:
        yield FieldError("port", f'the container has no port named "{action.port}"')


def _ids(*ids: int | None) -> Errors:
    fields = ("securityContext.runAsUser", "securityContext.runAsGroup", "securityContext.fsGroup")
    for field, number in zip(fields, ids, strict=False):
        if number is not None and not 0 <= number <= _MAX_ID:
            yield FieldError(field, f"{number} is not between 0 and {_MAX_ID}")


def _mode(field: str, mode: int) -> Errors:
    if not 0 <= mode <= 0o777:
        yield FieldError(field, f"{mode} is not between 0 and 0777 (511)")


def _climbs(path: str) -> bool:
    return ".." in path.split("/")
