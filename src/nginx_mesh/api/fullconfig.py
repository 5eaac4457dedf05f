"""All settings of a mesh as one document, in the words of NGINX Service Mesh; what may be secret is left out."""

from __future__ import annotations

from typing import Any

from .settings import CONTROL_PLANE_NAMESPACE, MeshSettings
from .values import MINUTE, HostPort, format_duration, format_size


def full_config(settings: MeshSettings, namespace: str = CONTROL_PLANE_NAMESPACE) -> dict[str, Any]:
    """What is in force. Of an upstream authority only its kind is told."""
    upstream = settings.upstream_authority
    return {
        "accessControlMode": settings.access_control_mode,
        "clientMaxBodySize": format_size(settings.client_max_body_size),
        "enableUDP": settings.enable_udp,
        "environment": settings.environment,
        "mtls": {
            "caKeyType": settings.ca_key_type,
            "caTTL": _life(settings.ca_ttl),
            "mode": settings.mtls_mode,
            "persistentStorage": settings.persistent_storage,
            "spireServerKeyManager": settings.key_manager,
            "svidTTL": _life(settings.svid_ttl),
            "trustDomain": settings.trust_domain,
            "upstreamAuthority": "" if upstream is None else upstream.upstream_authority,
        },
        "namespace": namespace,
        "nginxErrorLogLevel": settings.error_log_level,
        "nginxLBMethod": settings.lb_method,
        "nginxLogFormat": settings.log_format,
        "prometheusAddress": "" if settings.prometheus_address is None else str(settings.prometheus_address),
        "telemetry": {**_exporters(settings.otlp), "samplerRatio": settings.sampler_ratio},
    }


def _exporters(otlp: HostPort | None) -> dict[str, Any]:
    return {} if otlp is None else {"exporters": {"otlp": {"host": otlp.host, "port": otlp.port}}}


def _life(seconds: int) -> str:
    """Also one of seconds, which no flag can say."""
    return f"{seconds}s" if seconds % MINUTE else format_duration(seconds)
