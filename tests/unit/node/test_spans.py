"""Reports as spans: kinds, parents, times, names, attributes and errors by OpenTelemetry's conventions."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.node.spans import origin, span
from nginx_mesh.protocol.report import Report

WEB = PodRecord(
    key=ObjectKey("Pod", "shop", "web-1-x"),
    created="",
    addresses=("10.0.0.1",),
    account="web",
    ready=True,
    meshed=True,
    ports={},
    labels={},
    annotations={},
    owner=("statefulset", "web"),
    template_hash="",
)
ORIGIN = origin(WEB, "uid-1", "local", "spiffe://example.org/ns/shop/sa/web")
START = 1_700_000_000_000_000


def made(**changes: Any) -> ReadableSpan:
    facts = {
        "server": 0,
        "tapped": 0,
        "start_us": START,
        "duration_us": 2500,
        "status": 200,
        "http2": 0,
        "mtls": 1,
        "tries": 1,
        "client_port": 40000,
        "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span": "00f067aa0ba902b7",
        "method": "GET",
        "path": "/a/b",
        **changes,
    }
    return span(Report(**facts), ORIGIN)


def attributes(**changes: Any) -> dict[str, Any]:
    return dict(made(**changes).attributes or {})


def test_ids_times_and_resource_are_what_was_told() -> None:
    found = made(parent="00000000000000aa")
    assert found.context is not None and found.parent is not None
    assert f"{found.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert f"{found.context.span_id:016x}" == "00f067aa0ba902b7"
    assert (found.parent.span_id, found.parent.trace_id) == (0xAA, found.context.trace_id)
    assert (found.start_time, found.end_time) == (START * 1000, START * 1000 + 2_500_000)
    assert dict(found.resource.attributes) == {
        "service.name": "web",
        "service.namespace": "shop",
        "k8s.namespace.name": "shop",
        "k8s.statefulset.name": "web",
        "k8s.pod.name": "web-1-x",
        "k8s.pod.uid": "uid-1",
        "k8s.node.name": "local",
    }
    assert made().parent is None


def test_what_is_in_no_trace_is_no_span() -> None:
    with pytest.raises(ValueError, match="in no trace"):
        made(trace=None, span=None)


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"status": 200}, None),
        ({"status": 404}, "404"),
        ({"status": 503}, "503"),
        ({"status": 404, "server": 1}, None),
        ({"status": 500, "server": 1}, "500"),
        ({"grpc": 1, "grpc_status": 0}, None),
        ({"grpc": 1, "grpc_status": 5}, "5"),
        ({"grpc": 1, "grpc_status": 5, "server": 1}, None),
        ({"grpc": 1, "grpc_status": 13, "server": 1}, "13"),
        ({"grpc": 1, "status": 502}, "502"),
    ],
    ids=str,
)
def test_errors_are_what_the_conventions_say(facts: dict[str, Any], status: str | None) -> None:
    found = made(**facts)
    assert found.status.status_code is (StatusCode.ERROR if status else StatusCode.UNSET)
    assert (found.attributes or {}).get("error.type") == status


def test_a_client_span_tells_whom_it_called() -> None:
    found = made(
        authority="web.shop:8000",
        destination="10.96.0.1:80",
        upstream="[fd00::2]:8080",
        peer_id="spiffe://example.org/ns/shop/sa/db",
        cluster="shop/db:80",
        tries=3,
    )
    assert found.kind is SpanKind.CLIENT
    assert (found.attributes or {}).items() >= {
        "server.address": "web.shop",
        "server.port": 8000,
        "url.full": "http://web.shop:8000/a/b",
        "network.peer.address": "fd00::2",
        "network.peer.port": 8080,
        "http.request.resend_count": 2,
        "nginx_mesh.tries": 3,
        "nginx_mesh.client.spiffe_id": "spiffe://example.org/ns/shop/sa/web",
        "nginx_mesh.server.spiffe_id": "spiffe://example.org/ns/shop/sa/db",
        "nginx_mesh.cluster": "shop/db:80",
    }.items()


def test_a_server_span_tells_who_called_and_what_decided() -> None:
    found = made(
        server=1,
        status=503,
        client="10.0.0.9",
        peer_id="spiffe://example.org/ns/shop/sa/client",
        policy="shop/allow",
        limited_by="shop/slow",
        reason="rate limit exceeded",
    )
    assert found.kind is SpanKind.SERVER
    assert found.status.description == "rate limit exceeded"
    assert (found.attributes or {}).items() >= {
        "client.address": "10.0.0.9",
        "network.peer.port": 40000,
        "nginx_mesh.client.spiffe_id": "spiffe://example.org/ns/shop/sa/client",
        "nginx_mesh.server.spiffe_id": "spiffe://example.org/ns/shop/sa/web",
        "nginx_mesh.policy": "shop/allow",
        "nginx_mesh.rate_limit": "shop/slow",
        "nginx_mesh.reason": "rate limit exceeded",
    }.items()


def test_grpc_is_named_by_its_method() -> None:
    found = made(grpc=1, grpc_status=0, http2=1, path="/shop.Cart/Add", method="POST")
    assert found.name == "shop.Cart/Add"
    assert (found.attributes or {}).items() >= {
        "rpc.system": "grpc",
        "rpc.service": "shop.Cart",
        "rpc.method": "Add",
        "rpc.grpc.status_code": 0,
        "network.protocol.version": "2",
    }.items()


def test_names_are_few_whatever_callers_send() -> None:
    assert made().name == "GET"
    assert made(method="BREW").name == "HTTP"
    assert (
        attributes(method="BREW").items()
        >= {
            "http.request.method": "_OTHER",
            "http.request.method_original": "BREW",
        }.items()
    )


@pytest.mark.parametrize("authority", ["", ":", "[", "]:x", "a:b:c", "[::1]", "x:999999", "x:1\u0662", "\ufffd"])
def test_any_authority_will_do(authority: str) -> None:
    assert "server.port" not in attributes(authority=authority)
