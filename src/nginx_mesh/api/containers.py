"""Containers of pods, and the parts of a container that the mesh acts on."""

from __future__ import annotations

from .meta import IntOrString, Model


class ContainerPort(Model, frozen=True, kw_only=True):
    """spec.containers[].ports[]."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int | None = None


class KeySelector(Model, frozen=True, kw_only=True):
    """configMapKeyRef / secretKeyRef."""

    name: str = ""
    key: str
    optional: bool = False


class FieldSelector(Model, frozen=True, kw_only=True):
    """fieldRef (downward API), for example status.podIP."""

    field_path: str
    api_version: str = "v1"


class ResourceFieldSelector(Model, frozen=True, kw_only=True):
    """resourceFieldRef: a container's limit or request, for example limits.cpu."""

    resource: str
    container_name: str = ""


class FileKeySelector(Model, frozen=True, kw_only=True):
    """fileKeyRef: a variable of an environment file in one of the pod's volumes."""

    volume_name: str
    path: str
    key: str


class EnvVarSource(Model, frozen=True, kw_only=True):
    """env[].valueFrom."""

    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    file_key_ref: FileKeySelector | None = None


class EnvVar(Model, frozen=True, kw_only=True):
    """env[]."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class ObjectRef(Model, frozen=True, kw_only=True):
    """configMapRef / secretRef of envFrom."""

    name: str
    optional: bool = False


class EnvFromSource(Model, frozen=True, kw_only=True):
    """envFrom[]."""

    prefix: str = ""
    config_map_ref: ObjectRef | None = None
    secret_ref: ObjectRef | None = None


class VolumeMount(Model, frozen=True, kw_only=True):
    """volumeMounts[]."""

    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool = False


class HTTPHeader(Model, frozen=True, kw_only=True):
    """httpGet.httpHeaders[]."""

    name: str
    value: str


class HTTPGetAction(Model, frozen=True, kw_only=True):
    """httpGet probe."""

    port: IntOrString
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HTTPHeader] = []


class TCPSocketAction(Model, frozen=True, kw_only=True):
    """tcpSocket probe."""

    port: IntOrString
    host: str = ""


class ExecAction(Model, frozen=True, kw_only=True):
    """exec probe or hook."""

    command: list[str] = []


class GRPCAction(Model, frozen=True, kw_only=True):
    """grpc probe."""

    port: int
    service: str = ""


class Probe(Model, frozen=True, kw_only=True):
    """A liveness, readiness or startup probe. Durations are seconds."""

    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    exec: ExecAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3


class Capabilities(Model, frozen=True, kw_only=True):
    """securityContext.capabilities."""

    add: list[str] = []
    drop: list[str] = []


class SecurityContext(Model, frozen=True, kw_only=True):
    """Of a container."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    read_only_root_filesystem: bool | None = None
    capabilities: Capabilities | None = None


class Container(Model, frozen=True, kw_only=True):
    """spec.containers[], spec.initContainers[] or spec.ephemeralContainers[].

    An init container whose `restart_policy` is Always is a native sidecar: it goes on running beside the containers.
    """

    name: str
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    env: list[EnvVar] = []
    env_from: list[EnvFromSource] = []
    ports: list[ContainerPort] = []
    volume_mounts: list[VolumeMount] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    security_context: SecurityContext | None = None
    restart_policy: str = ""
