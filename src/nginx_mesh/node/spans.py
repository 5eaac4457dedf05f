"""Reports of sidecars as OpenTelemetry spans. Pure; attributes are named by OpenTelemetry's semantic conventions."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.protocol.report import Report
from nginx_mesh.version import version

_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY"))
_SCOPE = InstrumentationScope("nginx-mesh", version())
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
# The statuses that are errors of a server (https://opentelemetry.io/docs/specs/semconv/rpc/grpc/). To a client, all
# statuses but OK are errors.
_GRPC_SERVER_ERRORS = frozenset((2, 4, 12, 13, 14, 15))
_US = 1000


@dataclass(frozen=True, slots=True)
class Origin:
    """The pod whose sidecar made a span, as an OpenTelemetry resource, and the pod's SPIFFE ID."""

    resource: Resource
    spiffe_id: str


def origin(workload: PodRecord, uid: str, node: str, spiffe_id: str) -> Origin:
    """The origin of the spans that the sidecar of a pod makes. `uid` is the pod's."""
    kind, name = workload.owner or ("", workload.key.name)
    attributes: dict[str, AttributeValue] = {
        "service.name": name,
        "service.namespace": workload.key.namespace,
        "k8s.namespace.name": workload.key.namespace,
        "k8s.pod.name": workload.key.name,
        "k8s.pod.uid": uid,
        "k8s.node.name": node,
    }
    if kind:
        attributes[f"k8s.{kind}.name"] = name
    return Origin(Resource(attributes), spiffe_id)


def span(report: Report, made_by: Origin) -> ReadableSpan:
    """The span of a report that is in a trace. Raises ValueError for one that is not."""
    if report.trace is None or report.span is None:
        raise ValueError("the report is in no trace")
    trace = int(report.trace, 16)
    parent = None if report.parent is None else SpanContext(trace, int(report.parent, 16), True, _SAMPLED)
    start = report.start_us * _US
    error = _error(report)
    attributes = _attributes(report, made_by)
    if error:
        attributes["error.type"] = error
    return ReadableSpan(
        name=_name(report),
        context=SpanContext(trace, int(report.span, 16), False, _SAMPLED),
        parent=parent,
        resource=made_by.resource,
        attributes=attributes,
        kind=SpanKind.SERVER if report.server else SpanKind.CLIENT,
        status=Status(StatusCode.ERROR, report.reason or None) if error else Status(StatusCode.UNSET),
        start_time=start,
        end_time=start + report.duration_us * _US,
        instrumentation_scope=_SCOPE,
    )


def _name(report: Report) -> str:
    """A name of which there are few: the gRPC method, or the HTTP method without the path."""
    if report.grpc:
        return report.path.removeprefix("/") or "grpc"
    return report.method if report.method in _METHODS else "HTTP"


def _error(report: Report) -> str:
    """The type of the error that the span ended with, by the conventions; "" for none."""
    if report.grpc and report.grpc_status is not None:
        failed = report.grpc_status in _GRPC_SERVER_ERRORS if report.server else report.grpc_status != 0
        return str(report.grpc_status) if failed else ""
    return str(report.status) if report.status >= (500 if report.server else 400) else ""


def _attributes(report: Report, made_by: Origin) -> dict[str, AttributeValue]:
    host, port = _split(report.authority)
    dialled, dialled_port = _split(report.destination)
    upstream, upstream_port = _split(report.upstream)
    known = report.method in _METHODS
    attributes: dict[str, AttributeValue | None] = {
        "http.request.method": report.method if known else "_OTHER",
        "http.request.method_original": None if known else report.method,
        "http.response.status_code": report.status or None,
        "http.request.resend_count": report.tries - 1 if report.tries > 1 else None,
        "url.scheme": "http",
        "url.path": report.path,
        "user_agent.original": report.user_agent,
        "network.protocol.name": "http",
        "network.protocol.version": "2" if report.http2 else "1.1",
        "server.address": host or dialled,
        "server.port": port or dialled_port or None,
        "nginx_mesh.mtls": bool(report.mtls),
        "nginx_mesh.destination": report.destination,
        "nginx_mesh.reason": report.reason,
        "nginx_mesh.rate_limit": report.limited_by,
    }
    if report.grpc:
        service, _, method = report.path.removeprefix("/").rpartition("/")
        attributes |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        attributes["rpc.grpc.status_code"] = report.grpc_status
    if report.server:
        attributes |= {
            "client.address": report.client,
            "network.peer.address": report.client,
            "network.peer.port": report.client_port or None,
            "nginx_mesh.client.spiffe_id": report.peer_id,
            "nginx_mesh.server.spiffe_id": made_by.spiffe_id,
            "nginx_mesh.policy": report.policy,
        }
    else:
        attributes |= {
            "url.full": f"http://{report.authority or report.destination}{report.path}",
            "network.peer.address": upstream,
            "network.peer.port": upstream_port or None,
            "nginx_mesh.client.spiffe_id": made_by.spiffe_id,
            "nginx_mesh.server.spiffe_id": report.peer_id,
            "nginx_mesh.cluster": report.cluster,
            "nginx_mesh.tries": report.tries,
        }
    return {name: value for name, value in attributes.items() if value is not None and value != ""}


def _split(address: str) -> tuple[str, int]:
    """A host and port, 0 for none. Brackets of an IPv6 address are left out."""
    host, colon, port = address.rpartition(":")
    if not colon or "]" in port or not (port.isascii() and port.isdigit() and len(port) <= 5):
        host, port = address, ""
    return host.removeprefix("[").removesuffix("]"), int(port or 0)
