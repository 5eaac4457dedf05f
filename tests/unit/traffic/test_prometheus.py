"""A Prometheus that is slow, wrong, hostile or gone gives a clear error, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from nginx_mesh.api.values import HostPort
from nginx_mesh.traffic import prometheus
from nginx_mesh.traffic.measure import KINDS, TrafficQuery
from nginx_mesh.traffic.prometheus import Prometheus
from nginx_mesh.traffic.server import SourceError

ASKED = TrafficQuery(KINDS["deployments"])
RESPONSE = '"metric":{"counter":"responses","code":"2xx","deployment":"web","namespace":"shop"}'
SIDECARS = '{"metric":{"counter":"sidecars"},"value":[1,"1"]}'


def vector(*rows: str) -> str:
    return f'{{"status":"success","data":{{"resultType":"vector","result":[{",".join(rows)}]}}}}'


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[Prometheus]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Makes a client of a server that answers so."""
    closing: list[Callable[[], Awaitable[None]]] = []

    async def start(handler: Handler, seconds: float = 60) -> Prometheus:
        app = web.Application()
        app.router.add_post("/api/v1/query", handler)
        server = TestServer(app)
        await server.start_server()
        client = Prometheus(HostPort("127.0.0.1", server.port or 0), seconds=seconds)
        closing.extend([client.close, server.close])
        return client

    yield start
    for close in closing:
        await close()


def saying(text: str | bytes, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=text, status=status, content_type="application/json")

    return handler


async def test_flows_are_read(serve: Serve) -> None:
    client = await serve(saying(vector(f'{{{RESPONSE},"value":[1.5,"3"]}}', SIDECARS)))
    (flow,) = await client.flows(ASKED)
    assert (flow.source, flow.counts.success) == ({"deployment": "web", "namespace": "shop"}, 3)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ('{"status":"error","errorType":"bad_data","error":"no\\u001b[2J"}', 400, "refuses the query: no\\x1b[2J"),
        ("<html>a proxy", 502, "what is no result of a query"),
        ("", 200, "what is no result of a query"),
        ("null", 200, "what is no result of a query"),
        (b"\xff" * 99, 200, "what is no result of a query"),
        ("[" * 100_000, 200, "what is no result of a query"),
        ('{"status":"success","data":{"resultType":"matrix","result":[]}}', 200, "what is no result of a query"),
        (vector(f'{{{RESPONSE},"value":[1,"much"]}}'), 200, "what is no result of a query"),
        (vector(f'{{{RESPONSE},"value":[1,"NaN"]}}', SIDECARS), 200, "what is no result of a query"),
        (vector(f'{{{RESPONSE},"value":[1,"-3"]}}', SIDECARS), 200, "what is no result of a query"),
        (vector('{"metric":{},"value":[1,"3"]}', SIDECARS), 200, "what is no result of a query"),
        (vector(), 200, "has metrics of no sidecar: does it scrape them?"),
    ],
)
async def test_a_malformed_response_is_a_clear_error(serve: Serve, text: str | bytes, status: int, reason: str) -> None:
    client = await serve(saying(text, status))
    with pytest.raises(SourceError) as caught:
        await client.flows(ASKED)
    assert str(caught.value).startswith(f"Prometheus at {client.address} ")
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


async def test_redirects_are_not_followed(serve: Serve) -> None:
    followed: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        followed.append(request.query_string)
        raise web.HTTPTemporaryRedirect("/api/v1/query?again")

    client = await serve(handler)
    with pytest.raises(SourceError, match="307"):
        await client.flows(ASKED)
    assert followed == [""]


async def test_a_slow_prometheus_is_an_error_after_the_timeout(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(50):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        return response

    client = await serve(handler, 1)
    with pytest.raises(SourceError, match="does not answer within 1 s"):
        await client.flows(ASKED)


async def test_a_response_above_the_size_limit_is_an_error(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "_MAX_ANSWER", 1 << 20)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    client = await serve(handler)
    with pytest.raises(SourceError, match="answers more than 1 MiB"):
        await client.flows(ASKED)


async def test_an_unreachable_prometheus_is_an_error() -> None:
    client = Prometheus(HostPort("127.0.0.1", unused_port()))
    with pytest.raises(SourceError, match="does not answer: Connection refused"):
        await client.flows(ASKED)
    await client.close()
