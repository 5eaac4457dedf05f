"""The mesh's settings: what is decided when it is installed, overlaid by the live MeshConfig.

Times are seconds, sizes bytes. Text, as flags and MeshConfig have it, is read and written by `values`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from .errors import FieldError, located
from .meta import ObjectMeta
from .nsm import MeshConfig, MeshConfigSpec, MtlsConfig, OtlpExporter, TelemetryConfig, TelemetryExporters
from .values import (
    HOUR,
    AccessControlMode,
    CaKeyType,
    Environment,
    HostPort,
    KeyManager,
    LbMethod,
    LogFormat,
    LogLevel,
    MtlsMode,
    PersistentStorage,
    format_duration,
    format_size,
    parse_ca_ttl,
    parse_dns_name,
    parse_service_address,
    parse_size,
    parse_svid_ttl,
)

T = TypeVar("T")

CONTROL_PLANE_NAMESPACE = "nginx-mesh"
MESH_CONFIG_NAME = "nginx-mesh-config"
MESH_CONFIG_CLASS_NAME = "nginx-mesh-config-class"


class UpstreamAuthority(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What signs the mesh's CA: a plugin's name and its configuration, which the plugin itself validates."""

    api_version: str
    upstream_authority: Literal["disk", "aws_pca", "awssecret", "vault", "cert-manager"]
    config: dict[str, Any]

    def __repr__(self) -> str:
        # The configuration may hold tokens.
        return f"UpstreamAuthority(upstream_authority={self.upstream_authority!r}, config=<redacted>)"


class MeshSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Validated settings. `client_max_body_size` 0 means no limit. Raises FieldError, named as in MeshConfig."""

    mtls_mode: MtlsMode = "permissive"
    ca_ttl: int = 720 * HOUR
    svid_ttl: int = HOUR
    trust_domain: str = "example.org"
    ca_key_type: CaKeyType = "ec-p256"
    upstream_authority: UpstreamAuthority | None = None
    key_manager: KeyManager = "disk"
    persistent_storage: PersistentStorage = "auto"
    access_control_mode: AccessControlMode = "allow"
    lb_method: LbMethod = "least_time"
    client_max_body_size: int = 1 << 20
    error_log_level: LogLevel = "warn"
    log_format: LogFormat = "default"
    prometheus_address: HostPort | None = None
    otlp: HostPort | None = None
    sampler_ratio: float = 0.01
    enable_udp: bool = False
    environment: Environment = "kubernetes"

    def __post_init__(self) -> None:
        for field, ttl in (("mtls.caTTL", self.ca_ttl), ("mtls.svidTTL", self.svid_ttl)):
            if ttl < 1:
                raise FieldError(field, f"{ttl} s is no life for a certificate")
        if self.client_max_body_size < 0:
            raise FieldError("clientMaxBodySize", f"{self.client_max_body_size} is less than 0")
        if not 0 <= self.sampler_ratio <= 1:
            raise FieldError("telemetry.samplerRatio", f"{self.sampler_ratio} is not between 0 and 1")
        with located("mtls.trustDomain"):
            parse_dns_name(self.trust_domain)

    def with_config(self, config: MeshConfig) -> MeshSettings:
        """These settings with what a MeshConfig says. Raises FieldError, its field a path inside the MeshConfig."""
        with located("spec"):
            return msgspec.structs.replace(self, **_overlay(config.spec))

    def to_config(self, namespace: str = CONTROL_PLANE_NAMESPACE) -> MeshConfig:
        """The MeshConfig that says what these settings say, as far as that may change while the mesh runs.

        A time that a MeshConfig has no words for (of seconds, or a CA of less than a day) is left out.
        """
        return MeshConfig(
            metadata=ObjectMeta(name=MESH_CONFIG_NAME, namespace=namespace),
            spec=MeshConfigSpec(
                mesh_config_class_name=MESH_CONFIG_CLASS_NAME,
                access_control_mode=self.access_control_mode,
                client_max_body_size=format_size(self.client_max_body_size),
                mtls=MtlsConfig(
                    mode=self.mtls_mode,
                    ca_ttl=_said(self.ca_ttl, parse_ca_ttl),
                    svid_ttl=_said(self.svid_ttl, parse_svid_ttl),
                    ca_key_type=self.ca_key_type,
                ),
                nginx_error_log_level=self.error_log_level,
                nginx_lb_method=self.lb_method,
                nginx_log_format=self.log_format,
                prometheus_address=None if self.prometheus_address is None else str(self.prometheus_address),
                telemetry=TelemetryConfig(
                    exporters=None
                    if self.otlp is None
                    else TelemetryExporters(otlp=OtlpExporter(host=self.otlp.host, port=self.otlp.port)),
                    sampler_ratio=self.sampler_ratio,
                ),
            ),
        )


def _overlay(spec: MeshConfigSpec) -> dict[str, Any]:
    """The settings that a MeshConfig's spec gives, by the names of `MeshSettings`."""
    mtls, telemetry = spec.mtls, spec.telemetry
    given = {
        "mtls_mode": mtls.mode,
        "ca_ttl": _parsed("mtls.caTTL", parse_ca_ttl, mtls.ca_ttl),
        "svid_ttl": _parsed("mtls.svidTTL", parse_svid_ttl, mtls.svid_ttl),
        "ca_key_type": mtls.ca_key_type,
        "access_control_mode": spec.access_control_mode,
        "lb_method": spec.nginx_lb_method,
        "client_max_body_size": _parsed("clientMaxBodySize", parse_size, spec.client_max_body_size),
        "error_log_level": spec.nginx_error_log_level,
        "log_format": spec.nginx_log_format,
        "prometheus_address": _parsed("prometheusAddress", parse_service_address, spec.prometheus_address or None),
        "otlp": None if telemetry.exporters is None else _otlp(telemetry.exporters.otlp),
        "sampler_ratio": telemetry.sampler_ratio,
    }
    return {name: value for name, value in given.items() if value is not None}


def _parsed(field: str, parse: Callable[[str], T], text: str | None) -> T | None:
    with located(field):
        return None if text is None else parse(text)


def _otlp(exporter: OtlpExporter) -> HostPort:
    if not exporter.host:
        raise FieldError("telemetry.exporters.otlp.host", "is empty")
    if not 1 <= exporter.port <= 65535:
        raise FieldError("telemetry.exporters.otlp.port", f"{exporter.port} is not between 1 and 65535")
    return HostPort(exporter.host, exporter.port)


def _said(seconds: int, parse: Callable[[str], int]) -> str | None:
    text = format_duration(seconds)
    try:
        return text if parse(text) == seconds else None
    except FieldError:
        return None
