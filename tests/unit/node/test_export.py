"""Export of spans to collectors, good and bad, over real gRPC: nothing waits, all is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import REGISTRY

from nginx_mesh.api.values import HostPort
from nginx_mesh.node import export
from nginx_mesh.node.export import SpanExport
from tests.eventually import wait_until

from .test_spans import made

Method = Callable[[bytes, grpc.ServicerContext], bytes]


class Counts:
    """What was counted since."""

    def __init__(self) -> None:
        self._before = self._all()

    def __getitem__(self, name: str) -> float:
        return self._all()[name] - self._before[name]

    @staticmethod
    def _all() -> dict[str, float]:
        prefix = "nginx_mesh_spans_"
        reasons = ("queue", "collector")
        dropped = {r: REGISTRY.get_sample_value(f"{prefix}dropped_total", {"reason": r}) or 0 for r in reasons}
        return {"exported": REGISTRY.get_sample_value(f"{prefix}exported_total") or 0, **dropped}


def wait_for(counts: Counts, name: str, number: int) -> None:
    wait_until(lambda: counts[name] == number, lambda: f"{name} is {number}; it is {counts[name]}", 20)


@pytest.fixture
def serve() -> Iterator[Callable[[Method], HostPort]]:
    """Starts collectors."""
    servers = []

    def start(method: Method) -> HostPort:
        server = grpc.server(ThreadPoolExecutor(4))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(method)
        name = "opentelemetry.proto.collector.trace.v1.TraceService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return HostPort("collector", port)

    yield start
    for server in servers:
        server.stop(0)


@pytest.fixture
def exporter() -> Iterator[SpanExport]:
    found = SpanExport({"collector": "127.0.0.1"}.get)
    yield found
    began = time.monotonic()
    found.close()
    assert time.monotonic() - began < 3


def test_spans_reach_the_collector_and_are_counted(serve: Callable[[Method], HostPort], exporter: SpanExport) -> None:
    got: list[Any] = []

    def take(request: bytes, _: grpc.ServicerContext) -> bytes:
        for group in ExportTraceServiceRequest.FromString(request).resource_spans:
            got.extend(span.name for scope in group.scope_spans for span in scope.spans)
        return b""

    counts = Counts()
    exporter.target = serve(take)
    for _ in range(1200):
        exporter.add(made())
    wait_for(counts, "exported", 1200)
    assert got == ["GET"] * 1200
    other: list[bytes] = []
    exporter.target = serve(lambda request, _: other.append(request) or b"")  # type: ignore[func-returns-value]
    exporter.add(made())
    wait_for(counts, "exported", 1201)
    assert len(other) == 1
    exporter.target = None
    exporter.add(made())
    wait_for(counts, "collector", 1)
    assert len(other) == 1


def test_what_a_slow_collector_does_not_take_is_dropped_without_waiting(
    serve: Callable[[Method], HostPort], exporter: SpanExport
) -> None:
    released = threading.Event()

    def hang(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(released.set)
        released.wait(30)
        return b""

    counts = Counts()
    exporter.target = serve(hang)
    spans = [made() for _ in range(100)]
    began = time.monotonic()
    for _ in range(100):
        for span in spans:
            exporter.add(span)
    assert time.monotonic() - began < 5
    # what does not fit into the queue, and the batch that is on its way
    assert 10_000 - export.QUEUE - 1024 <= counts["queue"] <= 10_000 - export.QUEUE
    assert counts["exported"] == 0


def raising(code: grpc.StatusCode) -> Method:
    def fail(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "no")
        raise AssertionError

    return fail


BAD: dict[str, Method] = {
    "refuses": raising(grpc.StatusCode.PERMISSION_DENIED),
    "fails": raising(grpc.StatusCode.INTERNAL),
    "lies": lambda _, __: b"\xff" * 1000,
    "floods": lambda _, __: b"\x00" * (8 << 20),
}


@pytest.mark.parametrize("method", BAD.values(), ids=BAD)
def test_what_a_wrong_collector_does_not_take_is_dropped_and_the_next_is_sent(
    serve: Callable[[Method], HostPort], exporter: SpanExport, method: Method
) -> None:
    counts = Counts()
    exporter.target = serve(method)
    exporter.add(made())
    wait_for(counts, "collector", 1)
    assert counts["exported"] == 0
    exporter.target = serve(lambda _, __: b"")
    exporter.add(made())
    wait_for(counts, "exported", 1)


def test_a_collector_that_nobody_knows_or_that_is_not_there_costs_its_spans_only(exporter: SpanExport) -> None:
    counts = Counts()
    exporter.target = HostPort("nobody", 4317)
    exporter.add(made())
    wait_for(counts, "collector", 1)
    exporter.target = HostPort("collector", 1)
    exporter.add(made())
    wait_for(counts, "collector", 2)
