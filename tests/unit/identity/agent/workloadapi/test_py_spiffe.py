"""Proof with the client library `spiffe` from PyPI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from spiffe import JwtSource, SpiffeId, TrustDomain, WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import FetchX509SvidError, ValidateJwtSvidError

from nginx_mesh.identity.agent.workloadapi.server import WorkloadApiServer
from tests.eventually import eventually
from tests.unit.identity.domains import Domain

from .source import Workload

HOME = TrustDomain("example.org")
PARTNER = TrustDomain("partner.test")


@asynccontextmanager
async def serving(workload: Workload, directory: Path) -> AsyncIterator[str]:
    server = WorkloadApiServer(workload, directory / "agent.sock")
    await server.start()
    try:
        yield f"unix://{directory}/agent.sock"
    finally:
        await server.close()


async def test_x509_source_follows_rotation_loss_and_return(tmp_path: Path) -> None:
    partner = Domain("partner.test")
    workload = Workload(Domain(), "/web", federated={"partner.test": partner.bundle()})
    async with serving(workload, tmp_path) as socket:
        source = await asyncio.to_thread(X509Source, socket_path=socket, timeout_in_seconds=30)

        def has_the_latest() -> bool:
            assert workload.context is not None
            return leaf(source) == workload.context.svids[0].chain[0]

        try:
            assert str(source.get_x509_context().default_svid.spiffe_id) == "spiffe://example.org/web"
            assert has_the_latest()
            assert authorities(source, HOME) == set(workload.domain.authorities)
            assert authorities(source, PARTNER) == set(partner.authorities)
            for _ in range(3):
                workload.domain.rotate()
                workload.renew()
                await eventually(has_the_latest, "the newest SVID", 30)
                assert authorities(source, HOME) == set(workload.domain.authorities)
            workload.set(None)
            await eventually(lambda: workload.streams == 0, "all streams have ended", 30)
            workload.renew()
            await eventually(has_the_latest, "the newest SVID", 30)
        finally:
            await asyncio.to_thread(source.close)


def leaf(source: X509Source) -> object:
    return source.get_x509_context().default_svid.leaf


def authorities(source: X509Source, trust_domain: TrustDomain) -> set[object]:
    bundle = source.get_bundle_for_trust_domain(trust_domain)
    return set(bundle.x509_authorities) if bundle else set()


async def test_jwt_source_fetches_tokens_that_both_sides_validate(tmp_path: Path) -> None:
    partner = Domain("partner.test")
    ours = Workload(Domain(), "/web", "/admin", federated={"partner.test": partner.bundle()})
    theirs = Workload(partner, "/caller")
    (tmp_path / "theirs").mkdir()
    async with serving(ours, tmp_path) as socket, serving(theirs, tmp_path / "theirs") as other:
        await asyncio.to_thread(exchange_tokens, socket, other)


def exchange_tokens(socket: str, other: str) -> None:
    with JwtSource(socket_path=socket, timeout_in_seconds=30) as source, WorkloadApiClient(socket) as client:
        svid = source.fetch_svid({"db"}, SpiffeId("spiffe://example.org/admin"))
        assert str(svid.spiffe_id) == "spiffe://example.org/admin"
        assert len(source.fetch_svids({"db"})) == 2
        bundle = source.get_bundle_for_trust_domain(HOME)
        assert bundle is not None
        assert svid.parse_and_validate(svid.token, bundle, {"db"}).audience == {"db"}
        assert client.validate_jwt_svid(svid.token, "db").spiffe_id == svid.spiffe_id
        with pytest.raises(ValidateJwtSvidError, match="the token is not for 'cache'"):
            client.validate_jwt_svid(svid.token, "cache")
        with WorkloadApiClient(other) as foreign:
            token = foreign.fetch_jwt_svid({"db"}).token
            # Federation is one-way here: they do not know our trust domain.
            with pytest.raises(ValidateJwtSvidError, match=r"no bundle for the trust domain example\.org"):
                foreign.validate_jwt_svid(svid.token, "db")
        assert str(client.validate_jwt_svid(token, "db").spiffe_id) == "spiffe://partner.test/caller"
        partner_bundle = source.get_bundle_for_trust_domain(PARTNER)
        assert partner_bundle is not None
        svid.parse_and_validate(token, partner_bundle, {"db"})


async def test_workload_without_identity_is_told(tmp_path: Path) -> None:
    workload = Workload(Domain(), "/web")
    workload.set(None)
    async with serving(workload, tmp_path) as socket:
        with WorkloadApiClient(socket) as client, pytest.raises(FetchX509SvidError, match="no identity issued"):
            await asyncio.to_thread(client.fetch_x509_svid)
