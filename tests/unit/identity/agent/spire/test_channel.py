"""The server's API over TCP, where both ends prove who they are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.api.values import HostPort
from nginx_mesh.identity.agent.spire.channel import TcpServer
from nginx_mesh.identity.agent.spire.entries import Entry, EntryClient, Selector, SpireError
from nginx_mesh.identity.agent.spire.workload import WorkloadClient
from nginx_mesh.identity.common.keys import to_pem
from nginx_mesh.identity.common.workload import WorkloadContext
from nginx_mesh.identity.common.x509svid import certificate_pem
from tests.interop import spire
from tests.unit.identity.domains import Domain

from .standin import EntryServer

ADMIN = SpiffeId("spire.test", "/mesh")
AGENT = SpiffeId("spire.test", "/spire/agent/a")
ENTRY = Entry("nginx-mesh-1", SpiffeId("spire.test", "/w"), AGENT, frozenset([Selector("unix", "uid:0")]))


@asynccontextmanager
async def tls_server(domain: Domain, path: str = "/spire/server") -> AsyncIterator[HostPort]:
    """A server that is called as `path` says, and takes clients of its own trust domain."""
    svid = domain.svid(path)
    roots = b"".join(root.public_bytes(serialization.Encoding.PEM) for root in domain.authorities)
    chain = "".join(map(certificate_pem, svid.chain)).encode()
    credentials = grpc.ssl_server_credentials([(to_pem(svid.key).encode(), chain)], roots, require_client_auth=True)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((EntryServer(domain.name).handlers(),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield HostPort("127.0.0.1", port)
    finally:
        await server.stop(None)


def given(domain: Domain, path: str = ADMIN.path) -> WorkloadContext:
    """What the agent gave us."""
    return WorkloadContext((domain.svid(path),), {domain.name: domain.bundle()})


async def refusal(server: TcpServer) -> str:
    with pytest.raises(SpireError) as raised:
        async with server.open() as channel:
            await EntryClient(channel).of_parent(AGENT)
    return str(raised.value)


async def test_an_administrator_calls_the_server() -> None:
    domain = Domain("spire.test")
    async with tls_server(domain) as address:
        server = TcpServer(address, ADMIN)
        server.use(given(domain))
        async with server.open() as channel:
            client = EntryClient(channel)
            assert await client.create([ENTRY]) == {}
            assert await client.of_parent(AGENT) == [ENTRY]
        domain.rotate()  # the next connection is made with what is good then
        async with tls_server(domain) as moved:
            server = TcpServer(moved, ADMIN)
            server.use(given(domain))
            async with server.open() as channel:
                assert await EntryClient(channel).of_parent(AGENT) == []


async def test_no_other_server_is_believed() -> None:
    domain, stranger = Domain("spire.test"), Domain("spire.test")
    async with tls_server(domain, "/ns/shop/sa/web") as address:
        server = TcpServer(address, ADMIN)
        server.use(given(domain))
        assert "is not spiffe://spire.test/spire/server" in await refusal(server)
    async with tls_server(stranger) as address:
        server = TcpServer(address, ADMIN)
        server.use(given(domain))
        assert "certificate verify failed" in await refusal(server)


async def test_why_there_is_no_connection_is_told() -> None:
    domain = Domain("spire.test")
    server = TcpServer(HostPort("127.0.0.1", 1), ADMIN)
    assert f"grants us no {ADMIN}" in await refusal(server)
    server.use(given(domain, "/somebody"))
    assert f"grants us no {ADMIN}" in await refusal(server)
    server.use(given(domain))
    assert "127.0.0.1:1: " in (told := await refusal(server))
    assert "Connect call failed" in told


@spire.needed
async def test_spire_takes_our_administrator_and_nobody_else() -> None:
    async with spire.spire() as running:
        for path, *options in (("/mesh", "-admin"), ("/visitor",)):
            selector = str(next(iter(running.selectors)))
            identity = ["-spiffeID", f"spiffe://{running.trust_domain}{path}", "-parentID", str(running.parent_id)]
            await running.command("entry", "create", *identity, "-selector", selector, *options)
        held: asyncio.Queue[Any] = asyncio.Queue()
        following = asyncio.create_task(WorkloadClient(running.agent_socket, held.put_nowait).run())
        try:
            while len((context := await asyncio.wait_for(held.get(), 60)).svids) < 2:
                continue
            address = HostPort("127.0.0.1", running.port)
            server = TcpServer(address, ADMIN)
            server.use(context)
            async with server.open() as channel:
                client = EntryClient(channel)
                assert await client.create([Entry("x", ENTRY.spiffe_id, running.parent_id, ENTRY.selectors)]) == {}
                assert "x" in [entry.entry_id for entry in await client.of_parent(running.parent_id)]
            visitor = TcpServer(address, SpiffeId(running.trust_domain, "/visitor"))
            visitor.use(context)
            assert "PERMISSION_DENIED" in await refusal(visitor)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
