"""Steps that the caller's sidecar and the called one have in common. No I/O."""

from __future__ import annotations

from http import HTTPStatus

from nginx_mesh.api.annotations import MTLS_MODE
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.records import Workload
from nginx_mesh.compile.annotated import effective_mode
from nginx_mesh.protocol.explain import Refusal

from .document import Step

STATELESS = Step(step="state", outcome="refuse", message="the sidecar has no state yet")


def mode_object(settings: MeshSettings, pod: Workload) -> str:
    """The object that sets the mTLS mode of a pod."""
    if settings.mtls_mode == "strict" or effective_mode(settings, pod) == settings.mtls_mode:
        return "MeshConfig mtls.mode"
    return f"annotation {MTLS_MODE}"


def malformed_request(status: int) -> Step:
    """nginx itself refuses the request, with this HTTP status."""
    reason = "nginx refuses such a request, before the mesh looks at it"
    return Step(step="request", outcome="refuse", message=reason, status=status)


def refused(step: str, refusal: Refusal, message: str, *, grpc: bool, by: str = "") -> Step:
    """A step that refuses an HTTP request. For gRPC the refusal is a gRPC status in an HTTP response of 200."""
    return Step(
        step=step,
        outcome="refuse",
        message=message,
        object=by,
        status=HTTPStatus.OK if grpc else refusal.status,
        grpc_status=refusal.grpc_status if grpc else None,
    )


def seconds(ms: int) -> str:
    """A duration in milliseconds, shown in seconds."""
    return f"{ms / 1000:.1f} s"
