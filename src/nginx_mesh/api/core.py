"""The core Kubernetes objects that the mesh reads, with just the fields it acts on."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from .meta import Model, Object, ObjectMeta

IntOrString = int | str


class LabelSelectorRequirement(Model, frozen=True, kw_only=True):
    """One matchExpressions term."""

    key: str
    operator: str
    values: list[str] = []


class LabelSelector(Model, frozen=True, kw_only=True):
    """metav1.LabelSelector."""

    match_labels: dict[str, str] = {}
    match_expressions: list[LabelSelectorRequirement] = []


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


class EnvVarSource(Model, frozen=True, kw_only=True):
    """env[].valueFrom."""

    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None


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


class PodSecurityContext(Model, frozen=True, kw_only=True):
    """Of a pod."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None


class Container(Model, frozen=True, kw_only=True):
    """spec.containers[] or spec.initContainers[]."""

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


class KeyToPath(Model, frozen=True, kw_only=True):
    """items[] of a ConfigMap or Secret volume."""

    key: str
    path: str
    mode: int | None = None


class ConfigMapVolumeSource(Model, frozen=True, kw_only=True):
    """volumes[].configMap."""

    name: str
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class SecretVolumeSource(Model, frozen=True, kw_only=True):
    """volumes[].secret."""

    secret_name: str
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class EmptyDirVolumeSource(Model, frozen=True, kw_only=True):
    """volumes[].emptyDir."""

    medium: str = ""


class CSIVolumeSource(Model, frozen=True, kw_only=True):
    """volumes[].csi."""

    driver: str
    read_only: bool = False
    volume_attributes: dict[str, str] = {}


class Volume(Model, frozen=True, kw_only=True):
    """spec.volumes[]: the kinds that the local runtime can mount, and the sidecar's CSI volume."""

    name: str
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    csi: CSIVolumeSource | None = None


class PodSpec(Model, frozen=True, kw_only=True):
    """Pod spec."""

    containers: list[Container]
    init_containers: list[Container] = []
    volumes: list[Volume] = []
    service_account_name: str = ""
    host_network: bool = False
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    security_context: PodSecurityContext | None = None
    hostname: str = ""
    subdomain: str = ""
    node_name: str = ""


class PodIP(Model, frozen=True, kw_only=True):
    """status.podIPs[]."""

    ip: str


class PodCondition(Model, frozen=True, kw_only=True):
    """status.conditions[]."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class ContainerStatus(Model, frozen=True, kw_only=True):
    """status.containerStatuses[]. `state` is one of waiting, running, terminated."""

    name: str
    ready: bool = False
    restart_count: int = 0
    state: str = "waiting"
    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class PodStatus(Model, frozen=True, kw_only=True):
    """Pod status."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] = msgspec.field(name="podIPs", default_factory=list)
    conditions: list[PodCondition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []
    start_time: str = ""

    @property
    def ips(self) -> tuple[str, ...]:
        """Every address of the pod, the primary one first."""
        if self.pod_ips:
            return tuple(entry.ip for entry in self.pod_ips)
        return (self.pod_ip,) if self.pod_ip else ()

    @property
    def ready(self) -> bool:
        """Whether the Ready condition is True."""
        return any(c.type == "Ready" and c.status == "True" for c in self.conditions)


class PodTemplateSpec(Model, frozen=True, kw_only=True):
    """spec.template of a workload."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec


class Namespace(Object, frozen=True, kw_only=True):
    """v1 Namespace."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Namespace"
    PLURAL: ClassVar[str] = "namespaces"
    NAMESPACED: ClassVar[bool] = False


class ServiceAccount(Object, frozen=True, kw_only=True):
    """v1 ServiceAccount."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ServiceAccount"
    PLURAL: ClassVar[str] = "serviceaccounts"


class Pod(Object, frozen=True, kw_only=True):
    """v1 Pod."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Pod"
    PLURAL: ClassVar[str] = "pods"

    spec: PodSpec
    status: PodStatus = PodStatus()


class ServicePort(Model, frozen=True, kw_only=True):
    """spec.ports[] of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: IntOrString | None = None
    node_port: int | None = None


class ServiceSpec(Model, frozen=True, kw_only=True):
    """Service spec. `cluster_ip` is "None" for headless services."""

    type: str = "ClusterIP"
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] = msgspec.field(name="clusterIPs", default_factory=list)
    ip_family_policy: str = msgspec.field(name="ipFamilyPolicy", default="")
    ip_families: list[str] = msgspec.field(name="ipFamilies", default_factory=list)
    publish_not_ready_addresses: bool = False

    @property
    def headless(self) -> bool:
        """Whether DNS gives the pods' own addresses."""
        return self.cluster_ip == "None"


class Service(Object, frozen=True, kw_only=True):
    """v1 Service."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Service"
    PLURAL: ClassVar[str] = "services"

    spec: ServiceSpec


class EndpointConditions(Model, frozen=True, kw_only=True):
    """endpoints[].conditions; what is not said to be unready is ready."""

    ready: bool | None = None


class SliceEndpoint(Model, frozen=True, kw_only=True):
    """endpoints[] of an EndpointSlice."""

    addresses: list[str] = []
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""


class SlicePort(Model, frozen=True, kw_only=True):
    """ports[] of an EndpointSlice; `name` is that of the Service's port."""

    name: str = ""
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSlice(Object, frozen=True, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice: addresses behind the Service that its label names."""

    API_VERSION: ClassVar[str] = "discovery.k8s.io/v1"
    KIND: ClassVar[str] = "EndpointSlice"
    PLURAL: ClassVar[str] = "endpointslices"
    SERVICE_NAME: ClassVar[str] = "kubernetes.io/service-name"

    address_type: str
    endpoints: list[SliceEndpoint] = []
    ports: list[SlicePort] = []


class ConfigMap(Object, frozen=True, kw_only=True):
    """v1 ConfigMap; `binary_data` values are base64."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ConfigMap"
    PLURAL: ClassVar[str] = "configmaps"

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}


class Secret(Object, frozen=True, kw_only=True):
    """v1 Secret; `data` values are base64."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Secret"
    PLURAL: ClassVar[str] = "secrets"

    type: str = "Opaque"
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}


class RollingUpdate(Model, frozen=True, kw_only=True):
    """strategy.rollingUpdate: numbers of pods, or percentages such as "25%"."""

    max_surge: IntOrString = "25%"
    max_unavailable: IntOrString = "25%"


class DeploymentStrategy(Model, frozen=True, kw_only=True):
    """How a Deployment replaces pods: RollingUpdate or Recreate."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate = RollingUpdate()


class DeploymentSpec(Model, frozen=True, kw_only=True):
    """Deployment spec."""

    selector: LabelSelector
    template: PodTemplateSpec
    replicas: int = 1
    strategy: DeploymentStrategy = DeploymentStrategy()


class WorkloadStatus(Model, frozen=True, kw_only=True):
    """status of Deployment, StatefulSet, DaemonSet and ReplicaSet, as far as `get` shows it."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0


class Deployment(Object, frozen=True, kw_only=True):
    """apps/v1 Deployment."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "Deployment"
    PLURAL: ClassVar[str] = "deployments"

    spec: DeploymentSpec
    status: WorkloadStatus = WorkloadStatus()


class ReplicaSet(Object, frozen=True, kw_only=True):
    """apps/v1 ReplicaSet."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "ReplicaSet"
    PLURAL: ClassVar[str] = "replicasets"

    spec: DeploymentSpec
    status: WorkloadStatus = WorkloadStatus()


class StatefulSetSpec(Model, frozen=True, kw_only=True):
    """StatefulSet spec."""

    selector: LabelSelector
    template: PodTemplateSpec
    service_name: str = ""
    replicas: int = 1


class StatefulSet(Object, frozen=True, kw_only=True):
    """apps/v1 StatefulSet."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "StatefulSet"
    PLURAL: ClassVar[str] = "statefulsets"

    spec: StatefulSetSpec
    status: WorkloadStatus = WorkloadStatus()


class DaemonSetSpec(Model, frozen=True, kw_only=True):
    """DaemonSet spec."""

    selector: LabelSelector
    template: PodTemplateSpec


class DaemonSet(Object, frozen=True, kw_only=True):
    """apps/v1 DaemonSet."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "DaemonSet"
    PLURAL: ClassVar[str] = "daemonsets"

    spec: DaemonSetSpec
    status: WorkloadStatus = WorkloadStatus()


class ReplicationControllerSpec(Model, frozen=True, kw_only=True):
    """ReplicationController spec."""

    template: PodTemplateSpec
    selector: dict[str, str] = {}
    replicas: int = 1


class ReplicationController(Object, frozen=True, kw_only=True):
    """v1 ReplicationController."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ReplicationController"
    PLURAL: ClassVar[str] = "replicationcontrollers"

    spec: ReplicationControllerSpec


class JobSpec(Model, frozen=True, kw_only=True):
    """Job spec."""

    template: PodTemplateSpec
    completions: int = 1
    parallelism: int = 1
    backoff_limit: int = 6


class JobStatus(Model, frozen=True, kw_only=True):
    """Job status."""

    active: int = 0
    succeeded: int = 0
    failed: int = 0


class Job(Object, frozen=True, kw_only=True):
    """batch/v1 Job."""

    API_VERSION: ClassVar[str] = "batch/v1"
    KIND: ClassVar[str] = "Job"
    PLURAL: ClassVar[str] = "jobs"

    spec: JobSpec
    status: JobStatus = JobStatus()
