"""Agents and an identity server that is a process of its own, over TCP on loopback."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.api.values import parse_host_port
from nginx_mesh.identity.agent.agent import Agent
from nginx_mesh.identity.agent.remote import RemoteClient, join_token
from nginx_mesh.identity.common import tls, wire
from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.client import RefusedError, Registration, SvidRequest, UnavailableError
from nginx_mesh.identity.common.ids import agent_spiffe_id, server_spiffe_id
from nginx_mesh.identity.common.keymanager import KeyManagerError
from nginx_mesh.identity.common.keymanager.disk import DiskKeyManager
from nginx_mesh.identity.common.keymanager.memory import MemoryKeyManager
from nginx_mesh.identity.common.keys import generate_key, to_pem
from nginx_mesh.identity.common.workload import X509Svid
from nginx_mesh.identity.common.x509svid import request_svid
from nginx_mesh.protocol.state import Identity
from tests.eventually import eventually
from tests.mesh.identityserver import IdentityProcess
from tests.unit.identity.authorities import API, WEB, Company, leaf
from tests.unit.identity.chains import Verifier
from tests.unit.identity.domains import Domain

TD = "example.org"
NODE_1 = agent_spiffe_id(TD, "node-1")


class Server(IdentityProcess):
    """The process, listening on a port."""

    def __init__(self, **mtls: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        super().__init__({"trustDomain": TD, **mtls}, {"listen": f"127.0.0.1:{self.port}"})

    def token(self, name: str = "node-1", *, registrar: bool = True) -> Path:
        """A file with a new join token."""
        path = self.directory / f"{name}.token"
        path.write_text(self.admin("POST", "/tokens", {"name": name, "registrar": registrar})["token"])
        return path

    def roots(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.bundle.read_bytes())

    def client(
        self,
        token: Path,
        keep: DiskKeyManager | MemoryKeyManager | None = None,
        bootstrap: Callable[[], list[x509.Certificate]] | None = None,
    ) -> RemoteClient:
        return RemoteClient(
            parse_host_port(f"127.0.0.1:{self.port}"),
            TD,
            bootstrap=bootstrap or self.roots,
            evidence=join_token(token),
            keep=keep or MemoryKeyManager(),
        )

    def entries(self) -> set[str]:
        return {entry["id"] for entry in self.show()["entries"]}

    def rewrite(self, **mtls: object) -> None:
        self.mtls = self.mtls | mtls
        self.write_config()


@contextmanager
def serving(**mtls: object) -> Iterator[Server]:
    server = Server(**mtls)
    with server:
        until_file(server.bundle)
        yield server


def until_file(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """A server that no test harms."""
    with serving() as server:
        yield server


@asynccontextmanager
async def agent_of(client: RemoteClient, *workloads: str) -> AsyncIterator[tuple[Agent, list[tuple[str, Identity]]]]:
    """A running agent, once all these workloads have an identity."""
    agent, told = Agent(client), list[tuple[str, Identity]]()
    for name in workloads:
        agent.register(name, WEB)

    def on_update(name: str, identity: Identity | None) -> None:
        if identity is not None:
            told.append((name, identity))

    task = asyncio.create_task(agent.run(on_update))
    try:
        await eventually(lambda: {name for name, _ in told} >= set(workloads), lambda: f"identities of {workloads}", 40)
        yield agent, told
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def csr(spiffe_id: SpiffeId | None = WEB) -> bytes:
    return request_svid(generate_key("ec-p256"), spiffe_id).public_bytes(serialization.Encoding.DER)


async def asked(
    server: Server, method: str, path: str, message: object = None, svid: X509Svid | None = None
) -> tuple[int, str]:
    """Status and reason that whoever has this SVID, or none, gets. Raises aiohttp.ClientError, OSError."""
    bundle = TrustBundle(TD, tuple(server.roots()))
    context = tls.client_context(None if svid is None else lambda: svid, lambda: bundle, lambda _: None)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    body = message if isinstance(message, bytes) else None if message is None else wire.encode(message)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"https://127.0.0.1:{server.port}{path}", data=body) as response,
    ):
        answer = await response.read()
        with contextlib.suppress(msgspec.DecodeError):
            return response.status, msgspec.json.decode(answer, type=wire.Failed).error
        return response.status, ""


async def good(server: Server, name: str) -> None:
    """The server still does its work: a new agent comes, registers and gets an SVID."""
    client = server.client(server.token(name))
    await client.register([Registration(f"pod-of-{name}", str(WEB))])
    (answer,) = await client.sign([SvidRequest(f"pod-of-{name}", csr())])
    certificate = x509.load_der_x509_certificate(answer.chain[0])
    assert Verifier(server.roots()).spiffe_id(certificate, time.time()) == str(WEB)


def svid_of(client: RemoteClient) -> X509Svid:
    assert client._own is not None
    return client._own.svid


# --- admission ---


async def test_a_join_token_admits_once(shared: Server) -> None:
    token = shared.token("once")
    await shared.client(token).sync([])
    with pytest.raises(UnavailableError, match=r"not admitted: .*the join token is unknown, used or expired"):
        await shared.client(token).sync([])
    assert "127.0.0.1 is refused POST '/v1/attest': the join token is unknown, used or expired" in shared.log()
    token.write_text("invented")
    with pytest.raises(UnavailableError, match="the join token is unknown"):
        await shared.client(token).sync([])
    token.unlink()
    with pytest.raises(UnavailableError, match=r"join token: .*once.token: No such file"):
        await shared.client(token).sync([])
    await good(shared, "once-2")


async def test_forged_svids_of_agents_are_refused_and_logged(shared: Server) -> None:
    client = shared.client(shared.token("true"))
    await client.sync([])
    await client.register([Registration("true-pod", str(WEB))])
    true = svid_of(client)

    other = Domain(TD).svid("/nginx-mesh/agent/true")  # another CA of the same name
    with pytest.raises((aiohttp.ClientError, OSError)):
        await asked(shared, "GET", "/v1/entries", svid=other)
    assert "unable to get local issuer certificate" in shared.log()

    wrong_key = X509Svid(true.spiffe_id, true.chain, generate_key("ec-p256"))
    with pytest.raises((aiohttp.ClientError, OSError)):
        await asked(shared, "GET", "/v1/entries", svid=wrong_key)

    minted_key = generate_key("ec-p256")
    for spiffe_id, reason in (
        (WEB, f"{WEB} is not an attested agent"),
        (server_spiffe_id(TD), "is not an attested agent"),
        (agent_spiffe_id(TD, "nobody"), "nobody is not an attested agent"),
        (true.spiffe_id, "is not the one that"),  # the right CA and name, and yet not what it was given
    ):
        request = request_svid(minted_key, spiffe_id).public_bytes(serialization.Encoding.DER)
        minted = shared.admin("POST", "/mint", {"spiffe_id": str(spiffe_id), "csr": to_text(request)})
        chain = tuple(x509.load_pem_x509_certificates(minted["chain"].encode()))
        status, said = await asked(shared, "GET", "/v1/entries", svid=X509Svid(spiffe_id, chain, minted_key))
        assert (status, reason in said) == (401, True), said
        assert reason in shared.log()
    assert (await asked(shared, "GET", "/v1/entries"))[0] == 401
    assert (await asked(shared, "GET", "/v1/entries", svid=true))[0] == 200


def to_text(der: bytes) -> str:
    encoded: str = msgspec.to_builtins(der)
    return encoded


async def test_a_renewed_svid_makes_the_old_one_void_and_bans_and_evictions_count_at_once(shared: Server) -> None:
    client = shared.client(shared.token("renews"))
    await client.sync([])
    old = svid_of(client)
    assert client._own is not None
    client._own = replace(client._own, renew_at=0)
    await client.sync([])
    new = svid_of(client)
    assert new.chain != old.chain
    status, said = await asked(shared, "GET", "/v1/entries", svid=old)
    assert (status, "not the one that" in said) == (401, True)

    shared.admin("PATCH", "/agents/renews", {"banned": True})
    with pytest.raises(UnavailableError, match="is banned"):
        await client.sync([])
    assert "renews is banned" in shared.log()
    shared.admin("PATCH", "/agents/renews", {"banned": False})
    with pytest.raises(UnavailableError, match="join token"):  # the evidence, which it is asked for now, is used
        await client.sync([])
    await client.sync([])  # its SVID was not thrown away
    assert svid_of(client) is new

    await client.register([Registration("renews-pod", str(WEB))])
    shared.admin("DELETE", "/agents/renews")
    assert "renews-pod" not in shared.entries()
    with pytest.raises(UnavailableError, match="is not an attested agent"):
        await client.sync([])
    shared.token("renews")  # a new token in its place is all it needs
    await client.sync([Registration("renews-pod", str(WEB))])
    assert "renews-pod" in shared.entries()


async def test_an_agent_gets_only_what_is_its_own_and_its_right(shared: Server) -> None:
    one, two = shared.client(shared.token("one")), shared.client(shared.token("two"))
    await one.register([Registration("of-one", str(WEB), ("web.shop",))])
    await two.register([Registration("of-two", str(API))])
    for request in (csr(API), csr(None)):
        (answer,) = await one.sign([SvidRequest("of-two", request)])
        assert answer.refused == "it is not registered for this agent"
    (answer,) = await one.sign([SvidRequest("of-one", csr(API))])
    assert "asks for the name 'spiffe://example.org/ns/shop/sa/api'" in answer.refused
    with pytest.raises(RefusedError, match="not registered for this agent"):
        await one.sign_jwt("of-two", ["db"])
    with pytest.raises(RefusedError, match="this name is another agent's"):
        await one.register([Registration("of-two", str(WEB))])
    await one.unregister(["of-two"])
    assert {"of-one", "of-two"} <= shared.entries()
    for spiffe_id in (
        "spiffe://example.org/nginx-mesh/identity",
        "spiffe://example.org/ns/a/sa/%62",
        "spiffe://x/" * 999,
    ):
        with pytest.raises(RefusedError, match="entry evil: spiffe_id: "):
            await one.register([Registration("evil", spiffe_id)])
    log = shared.log()
    for logged in (
        "agent/one is refused an SVID for entry 'of-two'",
        "agent/one is refused POST '/v1/jwt'",
        "agent/one is refused POST '/v1/entries': entry evil: spiffe_id",
    ):
        assert logged in log

    plain = shared.client(shared.token("plain", registrar=False))
    await plain.sync([Registration("of-plain", str(WEB))])  # left to those who may
    assert "of-plain" not in shared.entries()
    message = wire.Registrations([Registration("of-plain", str(WEB))])
    for method in ("PUT", "POST"):
        status, said = await asked(shared, method, "/v1/entries", message, svid_of(plain))
        assert (status, said) == (403, "this agent may not register workloads")
    assert (await asked(shared, "POST", "/v1/entries/delete", wire.EntryIds(["of-one"]), svid_of(plain)))[0] == 403
    assert "of-one" in shared.entries()


async def test_svids_that_are_over_or_not_valid_yet_prove_nothing(shared: Server) -> None:
    client = shared.client(shared.token("late"))
    await client.sync([])
    key = generate_key("ec-p256")
    request = request_svid(key, agent_spiffe_id(TD, "late")).public_bytes(serialization.Encoding.DER)
    minted = shared.admin(
        "POST", "/mint", {"spiffe_id": str(agent_spiffe_id(TD, "late")), "csr": to_text(request), "ttl": 1}
    )
    chain = tuple(x509.load_pem_x509_certificates(minted["chain"].encode()))
    await asyncio.sleep(max(0.0, minted["not_after"] + 1.1 - time.time()))
    with pytest.raises((aiohttp.ClientError, OSError)):
        await asked(shared, "GET", "/v1/entries", svid=X509Svid(agent_spiffe_id(TD, "late"), chain, key))
    assert "certificate has expired" in shared.log()


async def test_no_token_is_sent_to_a_server_that_is_not_the_identity_server(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(await request.read())
        return web.Response(status=500)

    domain = Domain(TD)
    token = tmp_path / "token"
    token.write_text("secret")
    for svid, trusted in (
        (domain.svid("/nginx-mesh/agent/node-1"), domain),  # trusted, and somebody else
        (domain.svid("/ns/shop/sa/web"), domain),
        (Domain(TD).svid("/nginx-mesh/identity"), domain),  # of another CA
        (Domain("evil.org").svid("/nginx-mesh/identity"), domain),
        (domain.svid("/nginx-mesh/identity", since=-60, until=-1), domain),
        (domain.svid("/nginx-mesh/identity", since=60), domain),
    ):
        context = tls.server_context(lambda svid=svid: svid, domain.bundle, lambda _: None, "none")  # type: ignore[misc]
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        client = RemoteClient(
            parse_host_port(f"127.0.0.1:{runner.addresses[0][1]}"),
            TD,
            bootstrap=lambda trusted=trusted: trusted.authorities,  # type: ignore[misc]
            evidence=join_token(token),
            keep=MemoryKeyManager(),
        )
        with pytest.raises(UnavailableError):
            await client.sync([])
        await runner.cleanup()
    assert seen == []


# --- garbage ---


def junk(kind: str) -> bytes:
    return {
        "random": os.urandom(1 << 20),
        "zeros": bytes(1 << 20),
        "an endless header": b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 20),
        "an endless line": b"GET /" + b"a" * (1 << 20),
        "a TLS record that never ends": b"\x16\x03\x01\xff\xff" + bytes(1 << 20),
    }[kind]


KINDS = ("random", "zeros", "an endless header", "an endless line", "a TLS record that never ends")


def thrown(connect: Callable[[], socket.socket], content: bytes) -> bytes:
    """What comes back for content, until the other side hangs up or has nothing more to say."""
    received = b""
    with connect() as connection:
        connection.settimeout(2)
        with contextlib.suppress(OSError):
            connection.sendall(content)
        with contextlib.suppress(OSError):
            while len(received) < 100_000 and (got := connection.recv(65536)):
                received += got
    return received


def unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


@pytest.mark.parametrize("kind", KINDS)
async def test_a_mebibyte_of_garbage_on_every_socket_of_the_server_harms_nobody(shared: Server, kind: str) -> None:
    def plain() -> socket.socket:
        return socket.create_connection(("127.0.0.1", shared.port))

    def within_tls() -> socket.socket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain())

    for connect in (plain, within_tls, lambda: unix(shared.directory / "admin.sock")):
        answer = await asyncio.to_thread(thrown, connect, junk(kind))
        assert answer == b"" or not answer.startswith(b"HTTP/1.1 2")
    await good(shared, "after-" + kind.replace(" ", "-"))
    assert shared.show()["trust_domain"] == TD


async def test_malformed_messages_are_refused_with_the_field_and_logged(shared: Server) -> None:
    client = shared.client(shared.token("malformed"))
    await client.sync([])
    svid = svid_of(client)
    for method, path, body, reason in (
        ("POST", "/v1/svids", os.urandom(1 << 20), "malformed: "),
        ("POST", "/v1/svids", b'{"requests":[{"entry_id":7,"csr":""}]}', "$.requests[0].entry_id"),
        ("POST", "/v1/svids", b'{"requests":[{"entry_id":"a","csr":"%"}]}', "csr"),
        ("PUT", "/v1/entries", b'{"registrations":{}}', "$.registrations"),
        ("POST", "/v1/jwt", b'{"entry_id":"\xff","audience":[]}', "malformed: "),
        ("POST", "/v1/renew", b"[" * 100_000, "malformed: "),
        ("GET", "/v1/entries?cursor=-1", None, "cursor: not a number"),
        ("GET", "/v1/entries?cursor=99999999999999999999", None, "cursor: not a number"),
        ("POST", "/v1/attest", b'{"attestation":"tpm","payload":"","csr":""}', "'tpm' is not taken here"),
        ("POST", "/v1/attest", b"x" * (1 << 20), ""),
        ("POST", "/v1/svids", b"x" * (9 << 20), ""),
        ("GET", "/v1/nothing", None, "Not Found"),
    ):
        status, said = await asked(shared, method, path, body, svid)
        assert 400 <= status < 500
        assert reason in said
        assert said[:60] in shared.log()
    assert "Traceback" not in shared.log()
    await good(shared, "malformed-2")


# --- restarts ---


async def test_a_restart_is_over_in_seconds_and_nothing_is_attested_or_issued_again(tmp_path: Path) -> None:
    with serving() as server:
        client = server.client(server.token(), DiskKeyManager(tmp_path / "agent"))
        async with agent_of(client, "pod-1", "pod-2") as (agent, told):
            own, roots, count = svid_of(client), server.roots(), len(told)
            for number in (signal.SIGTERM, signal.SIGKILL):
                await asyncio.to_thread(server.end, number)
                await eventually(
                    lambda: agent.problem.startswith("the identity server does not answer: "),
                    "the agent has a problem",
                    40,
                )
                await asyncio.to_thread(server.start)
                agent.register(f"after-{number}", WEB)
                await eventually(partial(agent.identity, f"after-{number}"), f"an identity of after-{number}", 40)
                await eventually(lambda: agent.problem == "", "the agent has no problem", 40)
            assert server.roots() == roots
            assert svid_of(client) is own
            assert {name for name, _ in told[count:]} == {"after-15", "after-9"}
            assert server.entries() == {"pod-1", "pod-2", "after-15", "after-9"}

        # The agent's own restart: what it is, it is still.
        again = server.client(tmp_path / "no token", DiskKeyManager(tmp_path / "agent"))
        assert svid_of(again).spiffe_id == NODE_1
        async with agent_of(again, "pod-1"):
            assert svid_of(again).chain == own.chain
            await eventually(lambda: server.entries() == {"pod-1"}, "the entry of pod-1", 40)
        assert "/v1/attest" not in server.log()


async def test_keys_in_memory_below_an_upstream_all_workloads_recover_on_their_own(tmp_path: Path) -> None:
    company = Company(now=time.time())
    files = {"cert_file_path": company.middle.pem, "key_file_path": company.middle.key_pem}
    config = {}
    for key, pem in (*files.items(), ("bundle_file_path", company.root.pem)):
        config[key] = str(tmp_path / key)
        (tmp_path / key).write_text(pem)
        (tmp_path / key).chmod(0o600)
    upstream = {"apiVersion": "v1", "upstreamAuthority": "disk", "config": config}
    with serving(upstreamAuthority=upstream, spireServerKeyManager="memory") as server:
        client = server.client(server.token())
        async with agent_of(client, "pod-1", "pod-2") as (agent, told):
            own, signer = svid_of(client), server.signing()
            await asyncio.to_thread(server.end, signal.SIGKILL)
            await asyncio.to_thread(server.start)
            assert server.signing() != signer
            agent.register("pod-3", WEB)
            await eventually(lambda: agent.identity("pod-3"), "an identity of pod-3", 40)
            assert svid_of(client) is own
            newest = dict(told)
            for identity in newest.values():
                above = x509.load_pem_x509_certificates(identity.svid.encode())[1:]
                assert Verifier(server.roots()).spiffe_id(leaf(identity), time.time(), above) == str(WEB)
            assert len({leaf(identity).issuer for identity in newest.values()}) == 2


async def test_a_server_that_lost_all_is_believed_by_its_bundle_file_and_told_everything_again(tmp_path: Path) -> None:
    with serving(persistentStorage="off") as server:
        client = server.client(server.token(), DiskKeyManager(tmp_path / "agent"))
        async with agent_of(client, "pod-1", "pod-2") as (_, told):
            before = {name: identity.svid for name, identity in told}
            old_roots = server.roots()
            await asyncio.to_thread(server.end, signal.SIGKILL)
            server.bundle.unlink()
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(until_file, server.bundle)
            assert server.roots() != old_roots
            await asyncio.to_thread(server.token)  # an operator vouches for the machine again
            await eventually(lambda: server.entries() == {"pod-1", "pod-2"}, "the entries of both pods", 40)
            await eventually(
                lambda: all(dict(told)[name].svid != svid for name, svid in before.items()), "all SVIDs are renewed", 40
            )
            assert Verifier(server.roots()).spiffe_id(leaf(dict(told)["pod-1"]), time.time()) == str(WEB)
        # An agent that knows only the old root is not taken in by the new server.
        stranger = server.client(server.token("stranger"), bootstrap=lambda: old_roots)
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.sync([])


async def test_what_an_agent_keeps_is_private_and_damage_to_it_is_reported(tmp_path: Path, shared: Server) -> None:
    directory = tmp_path / "agent"
    client = shared.client(shared.token("keeps"), DiskKeyManager(directory))
    await client.sync([])
    (kept,) = directory.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    good = kept.read_bytes()
    kept.write_bytes(good[:-2])
    with pytest.raises(KeyManagerError, match="damaged"):
        shared.client(tmp_path / "none", DiskKeyManager(directory))
    assert kept.read_bytes() == good[:-2]
    keep = MemoryKeyManager()
    keep.put("agent", b'{"chain":""}')
    with pytest.raises(KeyManagerError, match="memory key manager: agent: "):
        shared.client(tmp_path / "none", keep)


async def test_no_token_and_no_key_is_in_any_log(shared: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = shared.token("quiet")
    client = shared.client(token)
    await client.sync([])
    with contextlib.suppress(UnavailableError):
        await shared.client(token).sync([])
    said = shared.log() + caplog.text + repr(client.__dict__)
    assert token.read_text() not in said
    assert to_pem(svid_of(client).key).splitlines()[1] not in said
