"""NGINX Service Mesh's own resources: RateLimit, CircuitBreaker, MeshConfig, MeshConfigClass."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from .meta import StrictModel, StrictObject
from .values import AccessControlMode, CaKeyType, LbMethod, LogFormat, LogLevel, MtlsMode

WorkloadKind = Literal["Service", "Deployment", "DaemonSet", "StatefulSet", "Pod"]


class WorkloadReference(StrictModel, frozen=True, kw_only=True):
    """Pods, named by a Service, a workload or their own name. An empty namespace is the policy's own."""

    kind: WorkloadKind
    name: str
    namespace: str = ""


class RateLimitRule(StrictModel, frozen=True, kw_only=True):
    """An HTTPRouteGroup of the RateLimit's namespace. Empty `matches` means all of the group's."""

    kind: Literal["HTTPRouteGroup"]
    name: str
    matches: list[str] = []


class RateLimitSpec(StrictModel, frozen=True, kw_only=True):
    """Spec of a RateLimit. `rate` is `Nr/s` or `Nr/m`; `delay` a number of requests or "nodelay".

    `values.parse_rate` and `values.parse_delay` read them.
    """

    destination: WorkloadReference
    name: str
    rate: str
    sources: list[WorkloadReference] = []
    burst: int = 0
    delay: int | str = 0
    rules: list[RateLimitRule] = []


class RateLimit(StrictObject, frozen=True, kw_only=True):
    """Limits the rate of requests to a destination. v1alpha1 is the same without `rules`."""

    API_VERSION: ClassVar[str] = "specs.smi.nginx.com/v1alpha2"
    KIND: ClassVar[str] = "RateLimit"
    PLURAL: ClassVar[str] = "ratelimits"

    spec: RateLimitSpec


class ServiceReference(StrictModel, frozen=True, kw_only=True):
    """A Service. An empty namespace is the policy's own."""

    kind: Literal["Service"]
    name: str
    namespace: str = ""


class Fallback(StrictModel, frozen=True, kw_only=True):
    """Who answers while a circuit is open. `service` is `namespace/name`, or a name in namespace `default`."""

    service: str
    port: int = 80

    @property
    def namespace(self) -> str:
        """The Service's namespace."""
        return self.service.rpartition("/")[0] or "default"

    @property
    def name(self) -> str:
        """The Service's name."""
        return self.service.rpartition("/")[2]


class CircuitBreakerSpec(StrictModel, frozen=True, kw_only=True):
    """Spec of a CircuitBreaker: `errors` failures within `timeout_seconds` open the circuit for that long."""

    destination: ServiceReference
    errors: int
    timeout_seconds: int
    fallback: Fallback | None = None


class CircuitBreaker(StrictObject, frozen=True, kw_only=True):
    """Keeps callers off a Service that fails."""

    API_VERSION: ClassVar[str] = "specs.smi.nginx.com/v1alpha1"
    KIND: ClassVar[str] = "CircuitBreaker"
    PLURAL: ClassVar[str] = "circuitbreakers"

    spec: CircuitBreakerSpec


class MtlsConfig(StrictModel, frozen=True, kw_only=True):
    """mtls of a MeshConfig. What is None keeps its install-time value, here and in the parts below."""

    mode: MtlsMode | None = None
    ca_ttl: str | None = msgspec.field(name="caTTL", default=None)
    svid_ttl: str | None = msgspec.field(name="svidTTL", default=None)
    ca_key_type: CaKeyType | None = None


class OtlpExporter(StrictModel, frozen=True, kw_only=True):
    """An OTLP gRPC collector."""

    host: str
    port: int


class TelemetryExporters(StrictModel, frozen=True, kw_only=True):
    """telemetry.exporters."""

    otlp: OtlpExporter


class TelemetryConfig(StrictModel, frozen=True, kw_only=True):
    """telemetry of a MeshConfig. `sampler_ratio` is the share of traces to keep, 0 to 1."""

    exporters: TelemetryExporters | None = None
    sampler_ratio: float | None = None


class MeshConfigSpec(StrictModel, frozen=True, kw_only=True):
    """What may change while the mesh runs. `MeshSettings.with_config` applies it."""

    mesh_config_class_name: str
    access_control_mode: AccessControlMode | None = None
    client_max_body_size: str | None = None
    mtls: MtlsConfig = MtlsConfig()
    nginx_error_log_level: LogLevel | None = None
    nginx_lb_method: LbMethod | None = msgspec.field(name="nginxLBMethod", default=None)
    nginx_log_format: LogFormat | None = None
    prometheus_address: str | None = None
    telemetry: TelemetryConfig = TelemetryConfig()


class MeshConfig(StrictObject, frozen=True, kw_only=True):
    """The mesh's live configuration."""

    API_VERSION: ClassVar[str] = "nsm.nginx.com/v1alpha2"
    KIND: ClassVar[str] = "MeshConfig"
    PLURAL: ClassVar[str] = "meshconfigs"

    spec: MeshConfigSpec


class MeshConfigClassSpec(StrictModel, frozen=True, kw_only=True):
    """Spec of a MeshConfigClass."""

    controller_name: str


class MeshConfigClass(StrictObject, frozen=True, kw_only=True):
    """Which controller uses the MeshConfigs of this class."""

    API_VERSION: ClassVar[str] = "nsm.nginx.com/v1alpha2"
    KIND: ClassVar[str] = "MeshConfigClass"
    PLURAL: ClassVar[str] = "meshconfigclasses"
    NAMESPACED: ClassVar[bool] = False

    spec: MeshConfigClassSpec
