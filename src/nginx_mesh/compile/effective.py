"""Effective settings of pods and Services: those of the mesh, unless annotations override them.

An annotation whose value is invalid is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from nginx_mesh.api import annotations as mesh
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.records import PodRecord, ServiceRecord
from nginx_mesh.protocol.state import LbMethod, MtlsMode

T = TypeVar("T")

# The largest integer that all JSON parsers read exactly (RFC 8259, section 6).
_MAX_INTEGER = (1 << 53) - 1


def effective_mode(settings: MeshSettings, pod: PodRecord) -> MtlsMode:
    """The mTLS mode of a pod: strict in a strict mesh, else its own, else that of the mesh."""
    if settings.mtls_mode == "strict":
        return "strict"
    return _value(mesh.mtls_mode, pod.annotations) or settings.mtls_mode


def speaks_mtls(settings: MeshSettings, pod: PodRecord, port: int) -> bool:
    """Whether a pod accepts mTLS at a port: it is meshed, its mode is not off, and its sidecar serves the port."""
    if not pod.meshed or effective_mode(settings, pod) == "off":
        return False
    ignored = _value(mesh.ignore_incoming_ports, pod.annotations) or ()
    return port not in ignored and port not in mesh.ALWAYS_IGNORED_INCOMING_PORTS


def client_max_body_size(settings: MeshSettings, pod: PodRecord) -> int:
    """The maximum size of a request body for a pod, in bytes; 0 for no limit."""
    own = _value(mesh.client_max_body_size, pod.annotations)
    return min(settings.client_max_body_size if own is None else own, _MAX_INTEGER)


def lb_method(settings: MeshSettings, service: ServiceRecord) -> LbMethod:
    """The load balancing method of a Service."""
    return _value(mesh.lb_method, service.annotations) or settings.lb_method


def peer_id(service: ServiceRecord) -> str | None:
    """The SPIFFE ID that the endpoints of a remote Service have to prove; None when the annotation is invalid."""
    return _value(mesh.peer_spiffe_id, service.annotations)


def _value(parse: Callable[[Mapping[str, str]], T], annotations: Mapping[str, str]) -> T | None:
    try:
        return parse(annotations)
    except FieldError:
        return None
