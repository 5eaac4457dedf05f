"""The wire contract, by a client that can also break it."""

import asyncio
import json
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf import json_format

from nginx_mesh.identity.agent.workloadapi import server as module
from nginx_mesh.identity.agent.workloadapi import workload_pb2 as pb
from nginx_mesh.identity.agent.workloadapi.server import MAX_REQUEST_BYTES, WorkloadApiServer
from nginx_mesh.identity.common import jwtsvid
from nginx_mesh.identity.common.workload import WorkloadContext
from tests.eventually import eventually
from tests.unit.identity.domains import Domain

from .source import Workload

HEADER = (("workload.spiffe.io", "true"),)
PARTNER = Domain("partner.test")
REQUESTS: dict[str, tuple[Any, Any]] = {
    "FetchX509SVID": (pb.X509SVIDRequest(), pb.X509SVIDResponse),
    "FetchX509Bundles": (pb.X509BundlesRequest(), pb.X509BundlesResponse),
    "FetchJWTBundles": (pb.JWTBundlesRequest(), pb.JWTBundlesResponse),
    "FetchJWTSVID": (pb.JWTSVIDRequest(audience=["db"]), pb.JWTSVIDResponse),
    "ValidateJWTSVID": (pb.ValidateJWTSVIDRequest(audience="db", svid="x"), pb.ValidateJWTSVIDResponse),
}
STREAMS = [name for name in REQUESTS if name not in ("FetchJWTSVID", "ValidateJWTSVID")]


class Caller:
    """A client on one connection."""

    def __init__(self, path: Path) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"unix:{path}", options=options)

    def stream(self, method: str, metadata: Any = HEADER) -> Any:
        request, response = REQUESTS[method]
        call: Any = self._channel.unary_stream(f"/SpiffeWorkloadAPI/{method}", None, response.FromString)
        return call(request.SerializeToString(), metadata=metadata, timeout=30)

    async def first(self, method: str, request: Any = None, metadata: Any = HEADER) -> Any:
        default, response = REQUESTS.get(method, (None, pb.X509SVIDResponse))
        data = request if isinstance(request, bytes) else (request or default).SerializeToString()
        call: Any = self._channel.unary_stream(f"/SpiffeWorkloadAPI/{method}", None, response.FromString)
        async for message in call(data, metadata=metadata, timeout=30):
            return message

    async def close(self) -> None:
        await self._channel.close()


@asynccontextmanager
async def serving(workload: Workload, path: Path, **options: Any) -> AsyncIterator[Caller]:
    server = WorkloadApiServer(workload, path, **options)
    await server.start()
    caller = Caller(path)
    try:
        yield caller
    finally:
        await caller.close()
        await server.close()


async def refused(answer: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await answer
    return error.value.code(), error.value.details() or ""


def certificates(der: bytes) -> list[x509.Certificate]:
    """Certificates that follow one another."""
    found = []
    while der:
        length = 4 + int.from_bytes(der[2:4], "big")
        assert der[:2] == b"\x30\x82"
        found.append(x509.load_der_x509_certificate(der[:length]))
        der = der[length:]
    return found


def workload(*paths: str) -> Workload:
    return Workload(Domain(), *paths, federated={"partner.test": PARTNER.bundle()})


async def test_x509_svids_come_with_key_and_bundles(tmp_path: Path) -> None:
    source = workload("/web", "/admin")
    source.domain.rotate()
    source.renew()
    async with serving(source, tmp_path / "s.sock") as caller:
        response = await caller.first("FetchX509SVID")
    assert [svid.spiffe_id for svid in response.svids] == ["spiffe://example.org/web", "spiffe://example.org/admin"]
    for svid in response.svids:
        key = serialization.load_der_private_key(svid.x509_svid_key, None)
        (leaf,) = certificates(svid.x509_svid)
        assert key.public_key() == leaf.public_key()
        assert certificates(svid.bundle) == source.domain.authorities
        assert len(source.domain.authorities) == 2
    assert set(response.federated_bundles) == {"spiffe://partner.test"}
    assert certificates(response.federated_bundles["spiffe://partner.test"]) == PARTNER.authorities


async def test_bundles_have_every_trust_domain(tmp_path: Path) -> None:
    source = workload("/web")
    async with serving(source, tmp_path / "s.sock") as caller:
        by_x509 = (await caller.first("FetchX509Bundles")).bundles
        by_jwt = (await caller.first("FetchJWTBundles")).bundles
    domains = {"spiffe://example.org": source.domain, "spiffe://partner.test": PARTNER}
    assert set(by_x509) == set(by_jwt) == set(domains)
    for name, domain in domains.items():
        assert certificates(by_x509[name]) == domain.authorities
        keys = json.loads(by_jwt[name])
        (key,) = jwt.PyJWKSet.from_dict(keys).keys
        assert (key.key_id, key.key) == (domain.jwt_key_id, domain.jwt_key.public_key())
        assert set(keys) == {"keys"}


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("metadata", [(), (("workload.spiffe.io", "True"),), HEADER + HEADER])
async def test_every_method_demands_the_security_header(method: str, metadata: Any, tmp_path: Path) -> None:
    async with serving(workload("/web"), tmp_path / "s.sock") as caller:
        code, details = await refused(caller.first(method, metadata=metadata))
    assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("context", [None, WorkloadContext((), {"example.org": Domain().bundle()})])
async def test_without_identity_permission_is_denied(
    method: str, context: WorkloadContext | None, tmp_path: Path
) -> None:
    source = workload("/web")
    source.set(context)
    async with serving(source, tmp_path / "s.sock") as caller:
        assert await refused(caller.first(method)) == (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")


@pytest.mark.parametrize("method", ["FetchWITSVID", "FetchWITBundles", "Nothing"])
async def test_profiles_that_we_do_not_have_are_unimplemented(method: str, tmp_path: Path) -> None:
    async with serving(workload("/web"), tmp_path / "s.sock") as caller:
        assert (await refused(caller.first(method, b"")))[0] == grpc.StatusCode.UNIMPLEMENTED


async def test_streams_tell_what_changes_and_end_with_the_identity(tmp_path: Path) -> None:
    source = workload("/web")
    async with serving(source, tmp_path / "s.sock") as caller:
        svids, bundles, keys = (caller.stream(name) for name in STREAMS)
        first = [await call.read() for call in (svids, bundles, keys)]
        source.renew()
        again = await svids.read()
        assert again.svids[0].x509_svid != first[0].svids[0].x509_svid
        assert again.svids[0].bundle == first[0].svids[0].bundle
        source.domain.rotate()
        source.renew()
        # Bundles did not change with the SVID, so their next message is that of the new CA.
        assert len(certificates((await bundles.read()).bundles["spiffe://example.org"])) == 2
        assert len(certificates((await svids.read()).svids[0].bundle)) == 2
        source.domain.jwt_key_id = "another"
        source.renew()
        assert b"another" in (await keys.read()).bundles["spiffe://example.org"]
        await svids.read()
        source.set(None)
        for call in (svids, bundles, keys):
            assert await refused(call.read()) == (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        source.renew()
        assert (await caller.first("FetchX509SVID")).svids


async def test_caller_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    source = workload("/web")
    async with serving(source, tmp_path / "s.sock") as caller:
        call = caller.stream("FetchX509SVID")
        await call.read()
        assert source.streams == 1
        call.cancel()
        await eventually(lambda: source.streams == 0, "all streams have ended", 20)


async def test_jwt_svids_of_all_identities_or_of_one(tmp_path: Path) -> None:
    source = workload("/web", "/admin")
    bundles = {"example.org": source.domain.bundle()}
    async with serving(source, tmp_path / "s.sock") as caller:
        both = (await caller.first("FetchJWTSVID", pb.JWTSVIDRequest(audience=["db", "cache"]))).svids
        one = (
            await caller.first("FetchJWTSVID", pb.JWTSVIDRequest(audience=["db"], spiffe_id=both[1].spiffe_id))
        ).svids
    assert [svid.spiffe_id for svid in both] == ["spiffe://example.org/web", "spiffe://example.org/admin"]
    assert [svid.spiffe_id for svid in one] == ["spiffe://example.org/admin"]
    for svid in both:
        assert jwtsvid.validate(svid.svid, "cache", bundles, time.time())["sub"] == svid.spiffe_id


@pytest.mark.parametrize(
    ("request_", "code", "details"),
    [
        (pb.JWTSVIDRequest(), "INVALID_ARGUMENT", "audience must be specified"),
        (pb.JWTSVIDRequest(audience=[""]), "INVALID_ARGUMENT", "audience must be specified"),
        (pb.JWTSVIDRequest(audience=["a"] * 33), "INVALID_ARGUMENT", "audience has more than 32 values"),
        (pb.JWTSVIDRequest(audience=["a" * 20_000]), "INVALID_ARGUMENT", "token has"),
        (pb.JWTSVIDRequest(audience=["a"], spiffe_id="web"), "INVALID_ARGUMENT", "invalid requested SPIFFE ID"),
        (
            pb.JWTSVIDRequest(audience=["a"], spiffe_id="spiffe://example.org/admin"),
            "PERMISSION_DENIED",
            "not entitled to spiffe://example.org/admin",
        ),
        (b"\xff\xff\xff", "INVALID_ARGUMENT", "request is malformed"),
        (pb.JWTSVIDRequest(audience=["a" * MAX_REQUEST_BYTES]), "RESOURCE_EXHAUSTED", ""),
    ],
)
async def test_bad_requests_for_tokens_are_refused(request_: Any, code: str, details: str, tmp_path: Path) -> None:
    async with serving(workload("/web"), tmp_path / "s.sock") as caller:
        found, said = await refused(caller.first("FetchJWTSVID", request_))
        assert (await caller.first("FetchJWTSVID")).svids
    assert found.name == code
    assert said.startswith(details)


async def test_tokens_are_unavailable_while_nobody_signs(tmp_path: Path) -> None:
    source = workload("/web")
    source.available = False
    async with serving(source, tmp_path / "s.sock") as caller:
        code, details = await refused(caller.first("FetchJWTSVID"))
    assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "the identity server does not answer")


def token(domain: Domain, **claims: object) -> str:
    now = int(time.time())
    payload = {"sub": f"spiffe://{domain.name}/web", "aud": "db", "exp": now + 60} | claims
    return jwt.encode(payload, domain.jwt_key, "ES256", {"kid": domain.jwt_key_id})


async def test_tokens_validate_with_all_claims_of_ours_and_few_of_others(tmp_path: Path) -> None:
    source = workload("/web")
    async with serving(source, tmp_path / "s.sock") as caller:

        async def claims(domain: Domain) -> tuple[str, Any]:
            svid = token(domain, role="admin", nested={"a": [1, None, "x"]})
            request = pb.ValidateJWTSVIDRequest(audience="db", svid=svid)
            answer = await caller.first("ValidateJWTSVID", request)
            return answer.spiffe_id, json_format.MessageToDict(answer.claims)

        ours, theirs = await claims(source.domain), await claims(PARTNER)
    assert ours[0] == "spiffe://example.org/web"
    assert ours[1]["role"] == "admin"
    assert ours[1]["nested"] == {"a": [1, None, "x"]}
    assert ours[1]["aud"] == ["db"]
    assert theirs[0] == "spiffe://partner.test/web"
    assert set(theirs[1]) == {"sub", "aud", "exp"}


@pytest.mark.parametrize(
    ("audience", "svid", "details"),
    [
        ("", "x", "audience must be specified"),
        ("db", "", "svid must be specified"),
        ("db", "x", "token has 1 parts"),
        ("other", token(PARTNER), "claim aud: the token is not for 'other'"),
        ("db", token(PARTNER, exp=5), "token expired"),
        ("db", token(Domain("stranger.test")), "no bundle for the trust domain stranger.test"),
        ("db", token(PARTNER, sub="spiffe://example.org/web"), "no key"),
    ],
)
async def test_tokens_that_do_not_hold_are_refused_with_the_reason(
    audience: str, svid: str, details: str, tmp_path: Path
) -> None:
    async with serving(workload("/web"), tmp_path / "s.sock") as caller:
        request = pb.ValidateJWTSVIDRequest(audience=audience, svid=svid)
        code, said = await refused(caller.first("ValidateJWTSVID", request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert said.startswith(details)


async def test_deeply_nested_claims_are_refused(tmp_path: Path) -> None:
    source = workload("/web")
    nested: Any = 1
    for _ in range(300):
        nested = [nested]
    async with serving(source, tmp_path / "s.sock") as caller:
        request = pb.ValidateJWTSVIDRequest(audience="db", svid=token(source.domain, nested=nested))
        code, details = await refused(caller.first("ValidateJWTSVID", request))
    assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, "claims are nested too deeply")


async def test_source_that_fails_is_unavailable_and_says_so_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = workload("/web")
    assert source.context is not None
    source.set(WorkloadContext(source.context.svids, {}))
    async with serving(source, tmp_path / "s.sock") as caller:
        code, details = await refused(caller.first("FetchX509SVID"))
    assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "could not put an answer together")
    assert "KeyError: 'example.org'" in caplog.text


class Ending(Workload):
    """A source whose agent ends after the first message, or fails."""

    failure: Exception | None = None

    async def updates(self) -> AsyncIterator[WorkloadContext | None]:
        yield self.context
        if self.failure is not None:
            raise self.failure


async def test_streams_of_a_source_that_ends_or_fails_are_unavailable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for failure, said in (
        (None, "the Workload API is shutting down"),
        (OSError("no disk"), "could not fetch what the workload holds"),
    ):
        source = Ending(Domain(), "/web")
        source.failure = failure
        async with serving(source, tmp_path / "s.sock") as caller:
            stream = caller.stream("FetchX509SVID")
            assert (await stream.read()).svids
            assert await refused(stream.read()) == (grpc.StatusCode.UNAVAILABLE, said)
    assert "OSError: no disk" in caplog.text


async def test_calls_beyond_the_limit_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CALLS", 4)
    async with serving(workload("/web"), tmp_path / "s.sock") as caller:
        streams = [caller.stream("FetchX509SVID") for _ in range(4)]
        for stream in streams:
            await stream.read()
        assert (await refused(caller.first("FetchX509SVID")))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        await eventually_served(caller)


async def eventually_served(caller: Caller) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            assert (await caller.first("FetchJWTSVID")).svids
            return
        except grpc.aio.AioRpcError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_socket_has_the_mode_asked_for(tmp_path: Path) -> None:
    for mode in (0o777, 0o660):
        async with serving(workload("/web"), tmp_path / "s.sock", mode=mode, uid=os.getuid(), gid=os.getgid()):
            status = (tmp_path / "s.sock").stat()
            assert stat.S_ISSOCK(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == mode
            assert [entry.name for entry in tmp_path.iterdir()] == ["s.sock"]
        assert not list(tmp_path.iterdir())


async def test_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(workload("/web"), path) as caller:
        assert (await caller.first("FetchX509SVID")).svids


async def test_successor_takes_over_while_the_predecessor_closes(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    former = WorkloadApiServer(workload("/old"), path)
    await former.start()
    caller = Caller(path)
    stream = caller.stream("FetchX509SVID")
    await stream.read()
    async with serving(workload("/new"), path) as successor:
        await former.close()
        assert (await refused(stream.read()))[0] == grpc.StatusCode.UNAVAILABLE
        assert (await successor.first("FetchX509SVID")).svids[0].spiffe_id == "spiffe://example.org/new"
    await caller.close()


async def test_socket_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none" / "s.sock", "cannot listen"), (tmp_path / ("a" * 108), "longer than 107")):
        with pytest.raises(OSError, match=reason) as error:
            await WorkloadApiServer(workload("/web"), path).start()
        assert str(path) in str(error.value)


async def test_garbage_on_the_socket_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    async with serving(workload("/web"), path) as caller:
        stream = caller.stream("FetchX509SVID")
        await stream.read()
        for junk in (os.urandom(1 << 20), b"GET / HTTP/1.1\r\n\r\n" * 60_000, preface + os.urandom(1 << 20)):
            reader, writer = await asyncio.open_unix_connection(str(path))
            with suppress(ConnectionError):
                writer.write(junk)
                await writer.drain()
                await asyncio.wait_for(reader.read(), 30)
            writer.close()
        assert (await caller.first("FetchX509SVID")).svids
        assert not stream.done()


async def test_many_connections_of_one_workload_leave_the_others_alone(tmp_path: Path) -> None:
    greedy, modest = tmp_path / "greedy.sock", tmp_path / "modest.sock"
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with serving(workload("/greedy"), greedy), serving(workload("/modest"), modest) as caller:
        pairs = []
        for _ in range(300):
            with suppress(OSError):
                pairs.append(await asyncio.open_unix_connection(str(greedy)))
        await asyncio.sleep(0.5)
        # Ours are open, and of the server's ends those that it takes.
        ends = len(list(Path("/proc/self/fd").iterdir())) - before - len(pairs)
        assert ends < 100
        assert (await caller.first("FetchX509SVID")).svids
        for _, writer in pairs:
            writer.close()


async def test_hundred_sockets_cost_no_thread_each(tmp_path: Path) -> None:
    source = workload("/web")
    servers = [WorkloadApiServer(source, tmp_path / f"{i}.sock") for i in range(101)]
    await servers[0].start()
    before = threads()
    for server in servers[1:]:
        await server.start()
    caller = Caller(tmp_path / "100.sock")
    assert (await caller.first("FetchX509SVID")).svids
    assert threads() - before < 20
    await caller.close()
    await asyncio.gather(*(server.close() for server in servers))
    assert not list(tmp_path.iterdir())


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
