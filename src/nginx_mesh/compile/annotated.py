"""What a Pod's or Service's annotations make of the mesh's settings. A value that cannot be read counts as absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from nginx_mesh.api import annotations as annotated
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.records import Balanced, Workload
from nginx_mesh.protocol.state import LbMethod, MtlsMode

T = TypeVar("T")

# The largest number that JSON carries exactly (RFC 8259, 6).
_LARGEST = (1 << 53) - 1


def effective_mode(settings: MeshSettings, pod: Workload) -> MtlsMode:
    """The mTLS mode of a pod: its own, unless the mesh is strict."""
    if settings.mtls_mode == "strict":
        return "strict"
    return _read(annotated.mtls_mode, pod.annotations) or settings.mtls_mode


def speaks_mtls(settings: MeshSettings, pod: Workload, port: int) -> bool:
    """Whether the pod answers mTLS at a port: it is meshed, its mode is not off, and the port passes its sidecar."""
    if not pod.meshed or effective_mode(settings, pod) == "off":
        return False
    ignored = _read(annotated.ignore_incoming_ports, pod.annotations) or ()
    return port not in ignored and port not in annotated.ALWAYS_IGNORED_INCOMING_PORTS


def client_max_body_size(settings: MeshSettings, pod: Workload) -> int:
    """The longest request body that a pod takes, in bytes; 0 for any."""
    own = _read(annotated.client_max_body_size, pod.annotations)
    return min(settings.client_max_body_size if own is None else own, _LARGEST)


def lb_method(settings: MeshSettings, service: Balanced) -> LbMethod:
    """How requests for a Service are shared among its endpoints."""
    return _read(annotated.lb_method, service.annotations) or settings.lb_method


def peer_id(service: Balanced) -> str | None:
    """The SPIFFE ID that a remote Service's endpoints prove. None when it cannot be read: then nobody can."""
    return _read(annotated.peer_spiffe_id, service.annotations)


def _read(read: Callable[[Mapping[str, str]], T], values: Mapping[str, str]) -> T | None:
    try:
        return read(values)
    except FieldError:
        return None
