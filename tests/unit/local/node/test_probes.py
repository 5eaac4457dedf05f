"""Probes against real servers on loopback, and the counting of their results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.containers import (
    Container,
    ContainerPort,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    HTTPHeader,
    Probe,
    TCPSocketAction,
)
from nginx_mesh.local.node.probes import ExecRunner, ProbeCounter, ProbeError, eager_delays, run_probe

LOOPBACK = "127.0.0.1"
CONTAINER = Container(name="app")


async def never(_: list[str]) -> int:
    raise AssertionError("no command was to be run")


@asynccontextmanager
async def server(answer: bytes, seen: list[bytes] | None = None) -> AsyncIterator[int]:
    """A server that answers whatever it is told first with these bytes; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(4096)
        if seen is not None:
            seen.append(request)
        writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(serve, LOOPBACK, 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def ask(probe: Probe, container: Container = CONTAINER, run: ExecRunner = never) -> str:
    """What the probe complains of; "" for success."""
    try:
        await run_probe(probe, container, LOOPBACK, run)
    except ProbeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 399 X\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP probe failed with statuscode: 404"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "HTTP probe failed with statuscode: 100"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"x" * 100_000, "the answer is not HTTP"),
        (b"", "the answer is not HTTP"),
    ],
)
async def test_http(answer: bytes, complaint: str) -> None:
    async with server(answer) as port:
        assert await ask(Probe(http_get=HTTPGetAction(port=port))) == complaint


async def test_http_request_has_the_path_and_headers_asked_for() -> None:
    seen: list[bytes] = []
    async with server(b"HTTP/1.1 200 OK\r\n\r\n", seen) as port:
        headers = [HTTPHeader(name="Host", value="example"), HTTPHeader(name="X-A", value="b")]
        assert await ask(Probe(http_get=HTTPGetAction(port=port, path="/a?b=c", http_headers=headers))) == ""
    head = seen[0].decode().split("\r\n")
    assert head[0] == "GET /a?b=c HTTP/1.1"
    assert head.count("Host: example") == 1 and "X-A: b" in head


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y"])
async def test_http_request_cannot_be_split(path: str) -> None:
    async with server(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert "characters" in await ask(Probe(http_get=HTTPGetAction(port=port, path=path)))


async def test_named_ports_are_the_containers() -> None:
    async with server(b"") as port:
        container = Container(name="app", ports=[ContainerPort(name="http", container_port=port)])
        assert await ask(Probe(tcp_socket=TCPSocketAction(port="http")), container) == ""
        assert "'other'" in await ask(Probe(tcp_socket=TCPSocketAction(port="other")), container)
    assert await ask(Probe(tcp_socket=TCPSocketAction(port=port))) != ""


async def test_a_command_succeeds_with_exit_code_0() -> None:
    async def run(argv: list[str]) -> int:
        return len(argv)

    assert await ask(Probe(exec=ExecAction(command=[])), run=run) == ""
    assert "exited with 1" in await ask(Probe(exec=ExecAction(command=["x"])), run=run)


async def test_a_probe_takes_no_longer_than_its_timeout() -> None:
    async def run(_: list[str]) -> int:
        await asyncio.sleep(100)
        return 0

    assert await ask(Probe(exec=ExecAction(command=["x"]), timeout_seconds=1), run=run) == "timed out after 1 s"


async def test_grpc_probes_survive_what_is_no_grpc_server() -> None:
    for answer in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 9, b"\xff" * 100, b"\0\0\4\7\0\0\0\0\0\0\0\0\0"):
        async with server(answer) as port:
            assert await ask(Probe(grpc=GRPCAction(port=port), timeout_seconds=1)) != ""


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_a_verdict_changes_after_as_many_results_in_a_row_as_the_thresholds_say(
    results: list[bool], successes: int, failures: int, start: bool
) -> None:
    counter = ProbeCounter(Probe(success_threshold=successes, failure_threshold=failures), start)
    expected = start
    for index, result in enumerate(results):
        needed = successes if result else failures
        tail = results[max(0, index + 1 - needed) : index + 1]
        if len(tail) == needed and all(other is result for other in tail):
            expected = result
        assert counter.record(result) is expected


@given(st.floats(0.5, 600))
def test_eager_attempts_are_few_and_within_the_first_period(period: float) -> None:
    delays = eager_delays(period)
    assert sum(delays) < period and len(delays) < 25
