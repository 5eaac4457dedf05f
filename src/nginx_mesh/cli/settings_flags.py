"""The flags that set a mesh's settings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from nginx_mesh.api.decoding import decode_as
from nginx_mesh.api.documents import read_file
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings, UpstreamAuthority
from nginx_mesh.api.values import (
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
    parse_host_port,
    parse_ratio,
    parse_service_address,
    parse_size,
    parse_svid_ttl,
)

from .params import Parsed

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULTS = MeshSettings()


def read_upstream_authority(path: Path) -> UpstreamAuthority:
    """Read the file that describes an upstream authority, make its paths absolute, and check the files that they name.

    Raises FieldError.
    """
    from nginx_mesh.identity.server.upstream.config import check_files, parse_config, with_absolute_paths

    settings = with_absolute_paths(decode_as(UpstreamAuthority, read_file(path)), path.parent)
    check_files(parse_config(settings))
    return settings


def _exporter(text: str) -> HostPort:
    """Read `type=otlp,host=…,port=…`. Raises FieldError."""
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    parts = dict(pairs)
    if sorted(name for name, _ in pairs) != ["host", "port", "type"] or parts["type"] != "otlp":
        raise FieldError("", f'"{text}" is not type=otlp,host=HOST,port=PORT')
    return parse_host_port(f"{parts['host']}:{parts['port']}")


def _choice(flag: str, name: str, words: object, text: str) -> Callable[[F], F]:
    return click.option(
        flag, name, type=click.Choice(get_args(words)), default=getattr(_DEFAULTS, name), show_default=True, help=text
    )


_MESH_FLAGS = (
    _choice("--mtls-mode", "mtls_mode", MtlsMode, "mTLS mode for pod-to-pod communication."),
    click.option(
        "--mtls-ca-ttl",
        "ca_ttl",
        type=Parsed("hours", parse_ca_ttl),
        default=format_duration(_DEFAULTS.ca_ttl),
        show_default=True,
        help="Life of the CA, 24h to 999999h.",
    ),
    click.option(
        "--mtls-svid-ttl",
        "svid_ttl",
        type=Parsed("duration", parse_svid_ttl),
        default=format_duration(_DEFAULTS.svid_ttl),
        show_default=True,
        help="Life of the certificates of workloads, in hours (h) or minutes (m), at most 999999.",
    ),
    click.option(
        "--mtls-trust-domain",
        "trust_domain",
        type=Parsed("domain", parse_dns_name),
        default=_DEFAULTS.trust_domain,
        show_default=True,
        help="SPIFFE trust domain of the mesh.",
    ),
    _choice("--mtls-ca-key-type", "ca_key_type", CaKeyType, "Key type of the CA."),
    click.option(
        "--mtls-upstream-ca-conf",
        "upstream_authority",
        type=Parsed("file", lambda text: read_upstream_authority(Path(text)) if text else None),
        help='File that describes the upstream certificate authority; "" for none: the CA signs itself.',
    ),
    _choice("--spire-server-key-manager", "key_manager", KeyManager, "Where the CA's private keys are kept."),
    _choice(
        "--persistent-storage",
        "persistent_storage",
        PersistentStorage,
        "Use persistent storage; auto does if there is a default StorageClass.",
    ),
    _choice(
        "--access-control-mode",
        "access_control_mode",
        AccessControlMode,
        "What happens to traffic that no TrafficTarget speaks of.",
    ),
    _choice("--nginx-lb-method", "lb_method", LbMethod, "Load balancing method."),
    click.option(
        "--client-max-body-size",
        "client_max_body_size",
        type=Parsed("size", parse_size),
        default=format_size(_DEFAULTS.client_max_body_size),
        show_default=True,
        help="Largest body of a request, for example 64k or 10m; 0 for no limit.",
    ),
    _choice("--nginx-error-log-level", "error_log_level", LogLevel, "Error log level of sidecars."),
    _choice("--nginx-log-format", "log_format", LogFormat, "Access log format of sidecars."),
    click.option(
        "--prometheus-address",
        "prometheus_address",
        type=Parsed("address", parse_service_address),
        help="Where Prometheus is: SERVICE.NAMESPACE:PORT.",
    ),
    click.option(
        "--telemetry-exporters",
        "otlp",
        type=Parsed("exporter", _exporter),
        help='Where traces go: "type=otlp,host=HOST,port=PORT".',
    ),
    click.option(
        "--telemetry-sampler-ratio",
        "sampler_ratio",
        type=Parsed("ratio", parse_ratio),
        default=str(_DEFAULTS.sampler_ratio),
        show_default=True,
        help="Share of traces that are exported.",
    ),
    click.option("--enable-udp", is_flag=True, help="Proxy UDP as well (beta)."),
    _choice("--environment", "environment", Environment, "What the mesh runs on."),
)


def mesh_flags(command: F) -> F:
    """Give a command the flags of the mesh's settings; it gets them as one argument, `settings: MeshSettings`."""

    @functools.wraps(command)
    def with_settings(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in MeshSettings.__struct_fields__}
        return command(settings=MeshSettings(**given), **arguments)

    decorated: Any = with_settings
    for flag in reversed(_MESH_FLAGS):
        decorated = flag(decorated)
    return decorated  # type: ignore[no-any-return]
