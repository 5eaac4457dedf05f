import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.identity.common.bundle import TrustBundle, decode, encode
from nginx_mesh.identity.server.datastore import IN_MEMORY, Datastore, open_datastore
from nginx_mesh.identity.server.federation.client import FederationError
from nginx_mesh.identity.server.federation.poller import FederationPoller, Pace, objections
from tests.eventually import eventually
from tests.unit.identity.domains import Domain

from .endpoints import spiffe_endpoint

FAST = Pace(minimum=0.05, maximum=0.1, retry=0.05, reload=0.05)


@pytest.fixture
def datastore(tmp_path: Path) -> Iterator[Datastore]:
    store = open_datastore(IN_MEMORY, tmp_path)
    yield store
    store.close()


@asynccontextmanager
async def polling(datastore: Datastore, pace: Pace = FAST) -> AsyncIterator[FederationPoller]:
    poller = FederationPoller(datastore, "example.org", pace=pace)
    task = asyncio.create_task(poller.run())
    try:
        yield poller
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def holds(datastore: Datastore, domain: Domain) -> bool:
    return datastore.bundle(domain.name) == encode(domain.bundle())


async def test_bundle_follows_rotation_by_the_trust_of_the_former_one(datastore: Datastore) -> None:
    partner = Domain("partner.test")
    datastore.put_bundle("partner.test", encode(partner.bundle()), None)
    async with spiffe_endpoint(partner) as relationship, polling(datastore):
        datastore.put_relationship(relationship)
        for _ in range(3):
            coming = partner.prepare()
            await eventually(lambda: holds(datastore, partner), "the newest bundle of the partner", 30)
            partner.signer = coming
            partner.authorities = [coming.certificate]
            partner.sequence += 1
            await eventually(lambda: holds(datastore, partner), "the newest bundle of the partner", 30)


async def test_bundle_stays_while_the_endpoint_is_away_or_proves_nothing(
    datastore: Datastore, caplog: pytest.LogCaptureFixture
) -> None:
    partner, impostor = Domain("partner.test"), Domain("partner.test")
    datastore.put_bundle("partner.test", encode(partner.bundle()), None)
    async with polling(datastore):
        async with spiffe_endpoint(partner) as relationship:
            datastore.put_relationship(relationship)
            partner.prepare()
            await eventually(lambda: holds(datastore, partner), "the newest bundle of the partner", 30)
        port = int(relationship.endpoint_url.rpartition(":")[2].strip("/"))
        await eventually(lambda: "Cannot connect" in caplog.text, "the failure in the log", 30)
        async with spiffe_endpoint(impostor, port=port):
            await eventually(lambda: "certificate verify failed" in caplog.text, "the failure in the log", 30)
        assert holds(datastore, partner)
        partner.prepare()
        async with spiffe_endpoint(partner, port=port):
            await eventually(lambda: holds(datastore, partner), "the newest bundle of the partner", 30)
    assert "the bundle stays as it is" in caplog.text


async def test_relationship_that_ends_is_not_polled_any_more(datastore: Datastore) -> None:
    partner = Domain("partner.test")
    served = []

    def bundle() -> TrustBundle:
        served.append(time.monotonic())
        return partner.bundle()

    datastore.put_bundle("partner.test", encode(partner.bundle()), None)
    async with spiffe_endpoint(partner, bundle) as relationship, polling(datastore, replace(FAST, reload=60)) as poller:
        datastore.put_relationship(relationship)
        poller.reload("partner.test")
        await eventually(lambda: len(served) > 2, lambda: f"three requests: {served}", 30)
        datastore.delete_relationship("partner.test")
        poller.reload("partner.test")
        await asyncio.sleep(0.5)
        count = len(served)
        await asyncio.sleep(0.5)
        assert len(served) == count
        assert datastore.bundle("partner.test") is None


async def test_relationship_that_is_entered_again_is_followed_at_once(datastore: Datastore) -> None:
    partner = Domain("partner.test")
    datastore.put_bundle("partner.test", encode(partner.bundle()), None)
    slow = replace(FAST, reload=60, minimum=60)
    async with spiffe_endpoint(partner) as relationship, polling(datastore, slow) as poller:
        datastore.put_relationship(relationship)
        poller.reload("partner.test")
        await eventually(lambda: holds(datastore, partner), "the newest bundle of the partner", 30)
        partner.prepare()
        datastore.put_relationship(relationship)
        poller.reload("partner.test")
        await eventually(lambda: holds(datastore, partner), "the newest bundle of the partner", 30)


async def test_bundle_of_a_relationship_that_ended_during_the_fetch_is_not_stored(datastore: Datastore) -> None:
    partner, broker = Domain("partner.test"), Domain("broker.test")

    def bundle() -> TrustBundle:
        datastore.delete_relationship("partner.test")
        return partner.bundle()

    datastore.put_bundle("broker.test", encode(broker.bundle()), None)
    async with spiffe_endpoint(broker, bundle) as relationship:
        asked = replace(relationship, trust_domain="partner.test")
        datastore.put_relationship(asked)
        with pytest.raises(FederationError, match=r"federation with partner\.test ended meanwhile"):
            await FederationPoller(datastore, "example.org").update(asked)
    assert datastore.bundle("partner.test") is None


async def test_faster_server_wins(datastore: Datastore) -> None:
    partner, broker = Domain("partner.test"), Domain("broker.test")
    other = encode(Domain("partner.test").bundle())

    def bundle() -> TrustBundle:
        datastore.put_bundle("partner.test", other, None)
        return partner.bundle()

    datastore.put_bundle("broker.test", encode(broker.bundle()), None)
    async with spiffe_endpoint(broker, bundle) as relationship:
        asked = replace(relationship, trust_domain="partner.test")
        datastore.put_relationship(asked)
        await FederationPoller(datastore, "example.org").update(asked)
    assert datastore.bundle("partner.test") == other


async def test_our_own_bundle_is_never_fetched(datastore: Datastore) -> None:
    ours = Domain()
    datastore.put_bundle("example.org", encode(ours.bundle()), None)
    async with spiffe_endpoint(ours, Domain().bundle) as relationship:
        with pytest.raises(FederationError, match="that is our own trust domain"):
            await FederationPoller(datastore, "example.org").update(relationship)
    assert datastore.bundle("example.org") == encode(ours.bundle())


async def test_sequence_number_that_goes_back_is_complained_about(
    datastore: Datastore, caplog: pytest.LogCaptureFixture
) -> None:
    partner = Domain("partner.test")
    known = replace(partner.bundle(), sequence=9)
    datastore.put_bundle("partner.test", encode(known), None)
    async with spiffe_endpoint(partner) as relationship:
        datastore.put_relationship(relationship)
        with caplog.at_level(logging.WARNING):
            await FederationPoller(datastore, "example.org").update(relationship)
    assert "its sequence number went back from 9 to 1" in caplog.text
    document = datastore.bundle("partner.test")
    assert document is not None
    assert decode("partner.test", document) == partner.bundle()


def test_what_is_odd_about_a_bundle() -> None:
    first = replace(Domain("partner.test").bundle(), sequence=5)
    assert objections(None, first) == []
    assert objections(first, first) == []
    assert objections(first, replace(first, sequence=6)) == []
    assert objections(first, replace(first, sequence=0, jwt_authorities=())) == []
    assert objections(first, replace(first, jwt_authorities=())) == ["its keys changed, its sequence number 5 did not"]
    assert len(objections(first, TrustBundle("partner.test", sequence=6))) == 1


@given(st.integers(0, 2**63 - 1), st.integers(1, 10**6))
def test_pace_stays_within_its_bounds(hint: int, failures: int) -> None:
    pace = Pace()
    bundle = TrustBundle("partner.test", refresh_hint=hint)
    assert pace.minimum <= pace.interval(bundle) <= pace.maximum
    assert 0 < pace.retry_after(failures, bundle) <= pace.interval(bundle)
    if pace.minimum <= hint <= pace.maximum:
        assert pace.interval(bundle) == hint


def test_bundle_without_hint_is_fetched_every_five_minutes() -> None:
    assert Pace().interval(None) == Pace().interval(TrustBundle("partner.test")) == 300
