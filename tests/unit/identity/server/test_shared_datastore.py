"""Servers of one trust domain that share a datastore."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509

from nginx_mesh.identity.common.client import RefusedError, Registration, SvidRequest
from nginx_mesh.identity.server.admission import Admission
from nginx_mesh.identity.server.authority import Authority
from nginx_mesh.identity.server.datastore import DatastoreConfig, open_datastore
from tests.unit.identity.authorities import (
    AGENT,
    API,
    DAY,
    HOUR,
    NOW,
    WEB,
    FakeClock,
    Node,
    authority,
    certificates,
    csr,
    leaf,
)
from tests.unit.identity.chains import Verifier

from .datastore.servers import SERVERS
from .test_admission import attested

BACKENDS = ["sqlite3", "postgres"]


@asynccontextmanager
async def pair(backend: str, directory: Path, clock: FakeClock) -> AsyncIterator[tuple[Authority, Authority]]:
    database = SERVERS["postgres"]() if backend == "postgres" else None
    config = DatastoreConfig() if database is None else database.database("identity")
    opened: list[Authority] = []
    try:
        for name in ("one", "two"):
            store = open_datastore(config, directory, clock)
            opened.append(authority(clock, datastore=store, server_id=name))
            await opened[-1].start()
        await opened[0].turn()  # hears of the second one's root
        one, two = opened
        yield one, two
    finally:
        for server in opened:
            await server.close()
        if database is not None:
            database.remove()


@pytest.mark.parametrize("backend", BACKENDS)
async def test_each_has_a_ca_of_its_own_and_all_hand_out_all_roots(backend: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with pair(backend, tmp_path, clock) as (one, two):
        for hour in range(0, 60, 3):
            clock.now = NOW + hour * HOUR
            for server in (one, two, one):
                await server.turn()
            assert one.current is not None
            assert two.current is not None
            assert one.current.certificate != two.current.certificate
            assert one.bundles.own.x509_authorities == two.bundles.own.x509_authorities
            assert one.bundles.own.jwt_authorities == two.bundles.own.jwt_authorities
            assert {one.current.certificate, two.current.certificate} <= set(one.bundles.own.x509_authorities)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_one_registers_the_other_signs_and_agents_of_both_believe_each_other(
    backend: str, tmp_path: Path
) -> None:
    clock = FakeClock()
    async with pair(backend, tmp_path, clock) as (one, two):
        await one.register(str(AGENT), [Registration("pod", str(WEB), ("web.shop",))])
        (answer,) = await two.sign(str(AGENT), [SvidRequest("pod", csr())])
        svid = x509.load_der_x509_certificate(answer.chain[0])
        assert two.current is not None
        assert svid.issuer == two.current.certificate.subject
        assert Verifier(one.bundles.own.x509_authorities).spiffe_id(svid, NOW) == str(WEB)
        await two.unregister(str(AGENT), ["pod"])
        (answer,) = await one.sign(str(AGENT), [SvidRequest("pod", csr())])
        assert answer.refused == "it is not registered for this agent"

        first, second = Node(one, "node-1"), Node(two, "node-2")
        first.agent.register("web", WEB)
        second.agent.register("api", API)
        for clock.now in range(NOW, NOW + DAY, HOUR):
            for node in (first, second, first):
                await node.turn()
            mine, theirs = first.identity("web"), second.identity("api")
            assert mine.bundle == theirs.bundle
            assert leaf(mine).issuer != leaf(theirs).issuer
            for identity in (mine, theirs):
                verifier = Verifier(certificates(mine.bundle))
                assert verifier.spiffe_id(leaf(identity), clock.now) == identity.spiffe_id


async def test_an_agent_admitted_by_one_is_known_and_can_be_banned_at_the_other(tmp_path: Path) -> None:
    async with pair("sqlite3", tmp_path, FakeClock()) as (one, two):
        admission = Admission(one)
        svid = await attested(admission)
        node = await Admission(two).admit(AGENT, svid.serial_number)
        renewed = (await Admission(two).renew(node, csr(None)))[0]
        await admission.admit(AGENT, renewed.serial_number)
        two.datastore.ban_node(str(AGENT), True)
        with pytest.raises(RefusedError, match="is banned"):
            await admission.admit(AGENT, renewed.serial_number)
