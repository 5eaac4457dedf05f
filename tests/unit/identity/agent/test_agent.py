import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.agent.agent import Agent
from nginx_mesh.identity.common import jwtsvid
from nginx_mesh.identity.common.client import Registration, SvidAnswer, SvidRequest, UnavailableError
from nginx_mesh.identity.common.keys import from_pem
from nginx_mesh.identity.common.workload import JwtRefusedError, WorkloadContext
from nginx_mesh.identity.common.x509svid import SvidError
from nginx_mesh.identity.inprocess import InProcessClient
from nginx_mesh.identity.server.authority import Authority
from nginx_mesh.protocol.state import Identity
from tests.eventually import eventually
from tests.unit.identity.authorities import (
    AGENT,
    API,
    DAY,
    HOUR,
    HOURLY,
    MINUTE,
    NOW,
    WEB,
    Company,
    FakeClock,
    Node,
    ShiftedClock,
    authority,
    certificates,
    leaf,
    names_of,
    not_after,
)
from tests.unit.identity.chains import PURPOSES, Verifier, openssl_verify


@asynccontextmanager
async def node(server: Authority, *workloads: str) -> AsyncIterator[Node]:
    """A node whose workloads, all of one service account, have their identities."""
    try:
        await server.start()
        one = Node(server)
        for name in workloads:
            one.agent.register(name, WEB)
        await one.turn()
        one.told.clear()
        yield one
    finally:
        await server.close()


@asynccontextmanager
async def running(one: Node) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.server.run()), asyncio.create_task(one.agent.run(one.on_update))]
    try:
        yield
        assert not any(task.done() for task in tasks), "run() ended by itself"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def accepted(identity: Identity, at: float, bundle: str = "") -> bool:
    verifier = Verifier(certificates(bundle or identity.bundle))
    return verifier.spiffe_id(leaf(identity), at, certificates(identity.svid)[1:]) == identity.spiffe_id


# --- identities ---


@pytest.mark.parametrize("upstream", [None, Company()], ids=["self-signed", "below a company's CA"])
async def test_a_registered_workload_has_a_complete_identity(upstream: Company | None, tmp_path: Path) -> None:
    below = HOURLY if upstream is None else replace(HOURLY, upstream="company")
    async with node(authority(FakeClock(), below, upstream=upstream)) as one:
        one.agent.register("pod-1", WEB, ["web.shop.svc.cluster.local", "web"])
        await one.turn()
        ((name, identity),) = one.told
        assert name == "pod-1"
        assert identity is one.identity("pod-1")
        assert identity.spiffe_id == str(WEB)
        for purpose in PURPOSES:
            assert openssl_verify(tmp_path, identity.svid, identity.bundle, purpose, NOW) == ""
        assert names_of(leaf(identity)) == ["web.shop.svc.cluster.local", "web"]
        assert identity.key.startswith("-----BEGIN PRIVATE KEY-----")  # what nginx takes
        assert from_pem(identity.key).public_key() == leaf(identity).public_key()
        assert not_after(identity) == NOW + HOUR
        held = one.agent.svid_status("pod-1")
        assert held is not None
        assert (held.serial, held.not_after) == (f"{leaf(identity).serial_number:x}", NOW + HOUR)
        assert len(held.bundle) == 1


async def test_two_pods_of_one_service_account_have_keys_of_their_own() -> None:
    async with node(authority(FakeClock()), "pod-1", "pod-2") as one:
        assert one.identity("pod-1").key != one.identity("pod-2").key


async def test_registering_again_reissues_only_for_other_names() -> None:
    async with node(authority(FakeClock())) as one:
        one.agent.register("pod-1", WEB, ["a", "b", "a"])
        await one.turn()
        one.agent.register("pod-1", WEB, ["a", "b"])
        await one.turn()
        assert len(one.told) == 1
        one.agent.register("pod-1", WEB, ["a", "c"])
        assert one.identity("pod-1") is one.told[0][1]  # what there is serves until then
        await one.turn()
        assert names_of(leaf(one.identity("pod-1"))) == ["a", "c"]
        one.agent.register("pod-1", API, ["a", "c"])
        assert one.agent.identity("pod-1") is None  # it is somebody else now
        await one.turn()
        assert one.identity("pod-1").spiffe_id == str(API)


async def test_a_refused_registration_changes_nothing() -> None:
    async with node(authority(FakeClock()), "pod-1") as one:
        before = one.identity("pod-1")
        with pytest.raises(SvidError, match="not a lower-case DNS name"):
            one.agent.register("pod-1", WEB, ["*"])
        await one.turn()
        assert one.identity("pod-1") is before


async def test_one_workload_that_is_refused_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    async with node(authority(clock), "pod-1", "pod-2") as one:
        one.agent.register("many", WEB, [f"name-{number}" for number in range(201)])
        one.agent.register("alien", workload_id("evil.org", "shop", "web"))
        one.agent.register("root", SpiffeId("example.org"))
        one.agent.register("good", API)
        await one.turn()
        assert one.identity("good").spiffe_id == str(API)
        assert all(one.agent.identity(name) is None for name in ("many", "alien", "root"))
        assert "workload many (spiffe://example.org/ns/shop/sa/web): no SVID: entry many: dns_names: 201" in caplog.text
        assert "alien (spiffe://evil.org" in caplog.text
        held = {name: one.agent.svid_status(name) for name in ("many", "good")}
        assert held["many"] is not None and "dns_names: 201" in held["many"].problem
        assert held["good"] is not None and held["good"].problem == ""
        said = len(caplog.records)
        await one.turn()
        assert len(caplog.records) == said  # it is not asked for again and again
        one.agent.register("many", WEB, ["name"])
        await one.turn()
        assert names_of(leaf(one.identity("many"))) == ["name"]
        mended = one.agent.svid_status("many")
        assert mended is not None and mended.problem == ""
        for _ in range(3):  # renewals go on
            clock.now += HOUR / 2
            await one.turn()
        assert not_after(one.identity("pod-1")) == clock.now + HOUR
        assert {entry.entry_id for entry in one.server.datastore.entries()} == {"pod-1", "pod-2", "good", "many"}


async def test_an_agent_that_starts_has_what_it_no_longer_knows_forgotten_also_when_some_are_refused() -> None:
    async with node(authority(FakeClock()), "old", "stays") as one:
        again = Node(one.server)
        again.agent.register("stays", WEB)
        again.agent.register("bad", WEB, [f"name-{number}" for number in range(201)])
        await again.turn()
        await again.turn()
        assert [entry.entry_id for entry in one.server.datastore.entries()] == ["stays"]
        assert again.identity("stays")


async def test_a_server_that_forgot_its_registrations_hears_of_them_again() -> None:
    clock = FakeClock()
    async with node(authority(clock), "pod-1", "pod-2") as one:
        one.server.datastore.delete_entries(["pod-1", "pod-2"])
        clock.now += HOUR / 2
        for _ in range(3):
            await one.turn()
            clock.now += 5
        assert {name for name, _ in one.told} == {"pod-1", "pod-2"}


# --- renewal ---


async def test_svids_are_renewed_by_half_their_life_and_not_all_at_once() -> None:
    clock = FakeClock()
    async with node(authority(clock), *(f"pod-{number}" for number in range(50))) as one:
        assert one.agent.due(NOW + 0.4 * HOUR - 1) == []
        assert 10 < len(one.agent.due(NOW + 0.45 * HOUR)) < 40
        assert len(one.agent.due(NOW + 0.5 * HOUR)) == 50
        clock.now = NOW + 0.5 * HOUR
        keys = {name: one.identity(name).key for name, _ in one.told}
        await one.turn()
        assert one.agent.due(clock.now) == []
        assert len(one.told) == 50
        for name, identity in one.told:
            assert one.identity(name) is identity
            assert identity.key != keys.get(name)
            assert not_after(identity) == clock.now + HOUR


async def test_an_unregistered_workload_is_forgotten_here_and_at_the_server() -> None:
    clock = FakeClock()
    async with node(authority(clock), "pod-1") as one:
        one.agent.unregister("pod-1")
        one.agent.unregister("never-seen")
        gone = (one.agent.identity("pod-1"), one.agent.context("pod-1"), one.agent.svid_status("pod-1"))
        assert gone == (None, None, None)
        clock.now += HOUR
        await one.turn()
        assert one.told == []
        assert one.server.datastore.entries() == []


async def test_a_workload_unregistered_while_others_are_told_is_left_alone() -> None:
    clock = FakeClock()
    async with node(authority(clock), "pod-1", "pod-2") as one:
        told = []

        def on_update(workload: str, _identity: Identity | None) -> None:
            told.append(workload)
            one.agent.unregister("pod-2")

        clock.now += 12 * HOUR  # a new bundle and new SVIDs
        await one.server.turn()
        await one.listen()
        await one.agent.turn(on_update)
        assert set(told) == {"pod-1"}
        assert one.agent.identity("pod-2") is None


class Interrupted(InProcessClient):
    """Something happens while SVIDs are being signed."""

    meanwhile: object = None

    async def sign(self, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        answers = await super().sign(requests)
        if callable(self.meanwhile):
            self.meanwhile()
        return answers


async def test_what_is_registered_or_forgotten_while_svids_are_signed_is_never_given_the_old_ones() -> None:
    server = authority(FakeClock())
    async with node(server) as one:
        client = Interrupted(server, str(AGENT))
        agent = Agent(client, server.clock)
        for name in ("moves", "renamed", "goes", "stays"):
            agent.register(name, WEB, ["old"])

        def meanwhile() -> None:
            agent.register("moves", API)
            agent.register("renamed", WEB, ["new"])
            agent.unregister("goes")
            client.meanwhile = None

        client.meanwhile = meanwhile
        agent.heard(await anext(client.watch()))
        await agent.turn(one.on_update)
        assert [name for name, _ in one.told] == ["stays"]
        await agent.turn(one.on_update)
        told = dict(one.told)
        assert set(told) == {"stays", "moves", "renamed"}
        assert told["moves"].spiffe_id == str(API)
        assert names_of(leaf(told["renamed"])) == ["new"]
        assert {entry.entry_id for entry in server.datastore.entries()} == {"moves", "renamed", "stays"}


async def test_names_that_change_between_two_batches_are_in_the_svid_of_the_second() -> None:
    server = authority(FakeClock())
    async with node(server) as one:
        client = Interrupted(server, str(AGENT))
        agent = Agent(client, server.clock)
        for number in range(65):  # one more than a batch
            agent.register(f"pod-{number}", WEB, ["old"])
        client.meanwhile = lambda: agent.register("pod-64", WEB, ["new"])
        agent.heard(await anext(client.watch()))
        await agent.turn(one.on_update)
        await agent.turn(one.on_update)
        assert names_of(leaf(dict(one.told)["pod-64"])) == ["new"]


class Garbling(InProcessClient):
    """Answers that are no certificates."""

    async def sign(self, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        first, *rest = await super().sign(requests)
        return [replace(first, chain=(b"nonsense",)), *rest]


async def test_an_answer_that_is_no_certificate_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    server = authority(FakeClock())
    async with node(server) as one:
        client = Garbling(server, str(AGENT))
        agent = Agent(client, server.clock)
        for name in ("pod-1", "pod-2"):
            agent.register(name, WEB)
        agent.heard(await anext(client.watch()))
        await agent.turn(one.on_update)
        assert [name for name, _ in one.told] == ["pod-2"]
        assert "workload pod-1" in caplog.text
        assert "malformed" in caplog.text


async def test_one_consumer_that_fails_keeps_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    async with node(authority(clock), "pod-1", "pod-2") as one:
        told = []

        def on_update(workload: str, _identity: Identity | None) -> None:
            told.append(workload)
            if workload == "pod-1":
                raise OSError("the sidecar is gone")

        clock.now += HOUR / 2
        await one.agent.turn(on_update)
        assert told == ["pod-1", "pod-2"]
        assert "workload pod-1" in caplog.text


async def test_svids_cut_short_by_their_ca_are_not_renewed_over_and_over() -> None:
    clock = FakeClock()
    async with node(authority(clock, replace(HOURLY, svid_ttl=30 * DAY)), "pod-1") as one:
        for minute in range(0, 24 * 60, 5):
            clock.now = NOW + minute * MINUTE
            await one.turn()
        assert len({identity.svid for _, identity in one.told}) <= 4  # at half of what is left, each time


async def test_a_shorter_ttl_reissues_what_would_live_too_long_and_a_longer_one_waits() -> None:
    clock = FakeClock()
    async with node(authority(clock), "pod-1") as one:
        one.server.reconfigure(replace(HOURLY, svid_ttl=20))
        await one.turn()
        assert [not_after(identity) for _, identity in one.told] == [NOW + 20]
        one.server.reconfigure(HOURLY)
        await one.turn()
        assert len(one.told) == 1
        clock.now += 10
        await one.turn()
        assert not_after(one.told[1][1]) == NOW + 10 + HOUR


@pytest.mark.parametrize("seconds", [400 * DAY, -400 * DAY, -HOUR, HOUR])
async def test_a_clock_that_is_set_leaves_nobody_without_a_valid_svid(seconds: float) -> None:
    clock = FakeClock(NOW + 6 * HOUR)
    async with node(authority(clock), "pod-1") as one:
        clock.now += seconds
        await one.turn()
        assert accepted(one.identity("pod-1"), clock.now)
        one.agent.register("new", API)
        await one.turn()
        assert accepted(one.identity("new"), clock.now)


@pytest.mark.parametrize("ahead", [-200, -30, 30, 200, 3000])
async def test_a_server_whose_clock_is_another_is_not_asked_again_and_again(ahead: float) -> None:
    clock, servers = FakeClock(), FakeClock(NOW + ahead)
    async with node(authority(servers)) as one:
        agent = Agent(one.client, clock)
        for name in ("pod-1", "pod-2"):
            agent.register(name, WEB)
        agent.heard(await anext(one.client.watch()))
        for _ in range(60):
            await agent.turn(one.on_update)
            clock.now += 1
            servers.now += 1
        # Beyond 5 minutes they are no good, which is said and tried again now and then.
        assert len(one.told) == 2 if abs(ahead) < 300 else 2 <= len(one.told) <= 26


# --- bundles and CAs ---


async def test_a_new_root_reaches_every_workload_before_any_svid_is_replaced() -> None:
    clock = FakeClock()
    async with node(authority(clock), "pod-1", "pod-2", "pod-3") as one:
        before = {name: one.identity(name).svid for name in ("pod-1", "pod-2", "pod-3")}
        clock.now = NOW + 12 * HOUR
        await one.turn()
        bundles, svids = one.told[:3], one.told[3:]
        assert [(name, identity.svid) for name, identity in bundles] == list(before.items())
        assert all(len(certificates(identity.bundle)) == 2 for _, identity in one.told)
        assert {name for name, _ in svids} == set(before)
        assert all(identity.svid != before[name] for name, identity in svids)


async def test_when_a_ca_is_retired_its_svids_are_replaced_soon_and_not_all_at_once() -> None:
    clock = FakeClock()
    names = [f"pod-{number}" for number in range(40)]
    async with node(authority(clock), *names) as one:
        first = leaf(one.identity("pod-0")).issuer
        await one.server.rotate(0)
        await one.turn()
        assert all(leaf(identity).issuer == first for _, identity in one.told[:40])  # the bundle comes first
        clock.now += 5
        await one.turn()
        replaced = sum(leaf(one.identity(name)).issuer != first for name in names)
        assert 8 < replaced < 32
        clock.now += 5
        await one.turn()
        assert all(leaf(one.identity(name)).issuer != first for name in names)
        assert all(accepted(one.identity(name), clock.now) for name in names)


async def test_svids_whose_root_is_gone_from_the_bundle_are_replaced() -> None:
    clock, company = FakeClock(), Company()
    async with node(authority(clock, replace(HOURLY, upstream="company"), upstream=company), "pod-1") as one:
        svid = one.identity("pod-1").svid
        announcement = await anext(one.client.watch())
        own = announcement.bundles["example.org"]
        one.agent.heard(replace(announcement, bundles={"example.org": replace(own, x509_authorities=())}))
        assert one.agent.due(NOW) == ["pod-1"]  # nobody would believe it
        one.agent.heard(announcement)
        assert one.agent.due(NOW) == []
        assert one.identity("pod-1").svid == svid


def test_no_key_is_shown_when_things_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def play() -> None:
        async with node(authority(FakeClock()), "pod-1") as one:
            identity = one.identity("pod-1")
            shown = repr([one.agent, one.agent._workloads, one.agent.context("pod-1")])
            assert identity.key.splitlines()[1] not in shown.replace("\\n", "\n") + caplog.text

    asyncio.run(play())


happenings = st.lists(
    st.tuples(
        st.sampled_from(["wait", "jump", "ttl", "register", "rename", "unregister", "rotate", "upstream"]),
        st.floats(0, 1),
    ),
    max_size=20,
)


@given(happenings, st.booleans())
@settings(max_examples=40)
def test_whatever_happens_after_a_few_turns_every_workload_has_a_valid_identity(
    events: list[tuple[str, float]], below_a_company: bool
) -> None:
    async def play() -> None:
        clock, company = FakeClock(), Company()
        upstream, wanted = (company, replace(HOURLY, upstream="company")) if below_a_company else (None, HOURLY)
        async with node(authority(clock, wanted, upstream=upstream)) as one:
            there: list[str] = []
            for number, (what, amount) in enumerate(events):
                match what:
                    case "wait":
                        clock.now += amount * HOUR
                    case "jump":
                        clock.now += (amount - 0.5) * 4 * DAY
                    case "ttl":
                        one.server.reconfigure(replace(wanted, svid_ttl=2 + int(amount * DAY)))
                    case "register":
                        one.agent.register(f"pod-{number}", WEB)
                        there.append(f"pod-{number}")
                    case "rename" if there:
                        one.agent.register(there[0], WEB, [f"name-{number}"])
                    case "unregister" if there:
                        one.agent.unregister(there.pop())
                    case "rotate" if not company.down:
                        await one.server.rotate(amount * 100)
                    case "upstream":
                        company.down = "" if company.down else "down"
                        clock.now += MINUTE + 1  # by then it is asked again, whenever it was last
                try:
                    await one.turn()
                    await one.turn()
                except Exception:
                    assert below_a_company and company.down
                    continue
                roots = one.server.bundles.own.x509_authorities
                for name in there:
                    identity = one.identity(name)
                    assert tuple(certificates(identity.bundle)) == roots
                    assert accepted(identity, clock.now)
                    assert 0 < not_after(identity) - clock.now <= one.server.settings.svid_ttl + 2

    asyncio.run(play())


@pytest.mark.parametrize(
    ("svid_ttl", "step", "below"),
    [(HOUR, 15 * MINUTE, False), (2 * DAY, HOUR, False), (HOUR, 15 * MINUTE, True)],
    ids=["hourly", "cut short by the CA", "below a company's CA"],
)
async def test_over_weeks_of_rotation_every_live_svid_is_accepted_by_every_verifier(
    svid_ttl: int, step: int, below: bool, tmp_path: Path
) -> None:
    """Verifiers: every workload; one that takes each update only when the next comes; one that is 3 h late."""
    clock = FakeClock()
    wanted = replace(HOURLY, svid_ttl=svid_ttl, upstream="company" if below else "")
    async with node(authority(clock, wanted, upstream=Company() if below else None)) as one:
        bundles: dict[str, list[tuple[float, str]]] = defaultdict(list)
        live: list[Identity] = []

        def on_update(workload: str, identity: Identity | None) -> None:
            assert identity is not None
            bundles[workload].append((clock.now, identity.bundle))
            live.append(identity)

        for name, spiffe_id in (("pod-1", WEB), ("pod-2", WEB), ("pod-3", API)):
            one.agent.register(name, spiffe_id)
        verifiers: dict[str, Verifier] = {}
        issuers, sizes, checked_by_openssl = set(), set(), set()
        for clock.now in range(NOW, NOW + 14 * DAY, step):
            await one.server.turn()
            await one.listen()
            await one.agent.turn(on_update)
            live = [identity for identity in live if not_after(identity) > clock.now]
            in_use = set()
            for updates in bundles.values():
                in_use.add(updates[-1][1])
                in_use.add(updates[-2 if len(updates) > 1 else -1][1])
                in_use.add(next((b for at, b in reversed(updates) if at <= clock.now - 3 * HOUR), updates[0][1]))
            for pem in in_use:
                verifier = verifiers.setdefault(pem, Verifier(certificates(pem)))
                for identity in live:
                    certificate, *above = certificates(identity.svid)
                    assert verifier.spiffe_id(certificate, clock.now, above) == identity.spiffe_id
                    pair = (certificate.issuer, pem)
                    if pair not in checked_by_openssl:
                        checked_by_openssl.add(pair)
                        assert openssl_verify(tmp_path, identity.svid, pem, "sslclient", clock.now) == ""
                    issuers.add(certificate.issuer)
            sizes.add(len(one.server.bundles.own.x509_authorities))
        assert len(issuers) > 24  # a CA signs for half a day
        assert max(sizes) <= (1 if below else 3)


# --- the Workload API's source ---


async def test_a_pods_source_tells_of_it_before_after_and_when_it_comes_again() -> None:
    async with node(authority(FakeClock())) as one:
        source, seen = one.agent.source("pod-1"), list[WorkloadContext | None]()

        async def follow() -> None:
            async for context in source.updates():
                seen.append(context)

        task = asyncio.create_task(follow())
        try:
            await eventually(lambda: seen == [None], "no identity yet", 20)
            for spiffe_id in (WEB, API):
                one.agent.register("pod-1", spiffe_id)
                await one.turn()
                await eventually(lambda: seen[-1] is not None, "an identity", 20)
                assert seen[-1] is not None
                assert seen[-1].svids[0].spiffe_id == spiffe_id
                assert set(seen[-1].bundles) == {"example.org"}
                one.agent.unregister("pod-1")
                await eventually(lambda: seen[-1] is None, "the identity is taken away", 20)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_jwt_keys_that_change_below_one_root_reach_the_source() -> None:
    clock, company = FakeClock(), Company()
    async with node(authority(clock, replace(HOURLY, upstream="company"), upstream=company), "pod-1") as one:
        updates = one.agent.source("pod-1").updates()
        first = await anext(updates)
        clock.now += 12 * HOUR
        await one.server.turn()
        await one.listen()
        second = await asyncio.wait_for(anext(updates), 5)
        assert first is not None
        assert second is not None
        before, after = (context.bundles["example.org"] for context in (first, second))
        assert before.x509_authorities == after.x509_authorities
        assert len(after.jwt_authorities) == 2


async def test_a_nodes_source_has_one_svid_for_each_identity() -> None:
    async with node(authority(FakeClock()), "pod-1", "pod-2") as one:
        one.agent.register("pod-3", API)
        await one.turn()
        context = await anext(one.agent.node_source().updates())
        assert context is not None
        assert sorted(str(svid.spiffe_id) for svid in context.svids) == [str(API), str(WEB)]
        tokens = await one.agent.node_source().jwt_svids(["db"], None)
        assert sorted(str(token.spiffe_id) for token in tokens) == [str(API), str(WEB)]


async def test_jwt_svids_are_cached_for_half_their_life_and_never_those_of_somebody_else() -> None:
    clock = FakeClock()
    async with node(authority(clock), "pod-1") as one:
        source = one.agent.source("pod-1")
        (first,) = await source.jwt_svids(["db"], None)
        assert (await source.jwt_svids(["db"], WEB)) == [first]
        assert (await source.jwt_svids(["api"], None)) != [first]
        clock.now += 151
        (second,) = await source.jwt_svids(["db"], None)
        assert second.token != first.token
        bundles = {"example.org": one.server.bundles.own}
        assert jwtsvid.validate(second.token, "db", bundles, clock.now)["sub"] == str(WEB)
        with pytest.raises(JwtRefusedError, match="no identity issued"):
            await source.jwt_svids(["db"], API)
        one.agent.register("pod-1", API)
        with pytest.raises(JwtRefusedError, match="does not know yet"):
            await source.jwt_svids(["db"], None)
        await one.turn()
        (moved,) = await source.jwt_svids(["db"], None)
        assert moved.spiffe_id == API
        one.agent.unregister("pod-1")
        with pytest.raises(JwtRefusedError, match="no identity issued"):
            await source.jwt_svids(["db"], None)


# --- running ---


async def test_running_keeps_short_lived_svids_valid_at_every_moment() -> None:
    async with node(authority(time.time, replace(HOURLY, svid_ttl=6)), "pod-1") as one, running(one):
        end = time.monotonic() + 7
        while time.monotonic() < end:
            assert accepted(one.identity("pod-1"), time.time())
            await asyncio.sleep(0.05)
        assert len(one.told) >= 2


@pytest.mark.parametrize("hours", [1, -1, 24 * 400, -24 * 400])
async def test_a_clock_that_is_set_is_noticed_while_running(hours: int) -> None:
    clock = ShiftedClock()
    async with node(authority(clock), "pod-1", "pod-2") as one, running(one):
        before = {name: one.identity(name).svid for name in ("pod-1", "pod-2")}
        clock.offset = hours * HOUR
        await eventually(
            lambda: all(one.identity(name).svid != svid for name, svid in before.items()), "all SVIDs are renewed", 20
        )
        assert all(accepted(one.identity(name), clock()) for name in before)


async def test_new_settings_and_forced_rotations_are_applied_while_running() -> None:
    async with node(authority(time.time), "pod-1") as one, running(one):
        first = leaf(one.identity("pod-1")).issuer
        one.server.reconfigure(replace(HOURLY, svid_ttl=60))
        await eventually(lambda: not_after(one.identity("pod-1")) <= time.time() + 60, "an SVID of a minute", 20)
        await one.server.rotate(0)
        await eventually(lambda: leaf(one.identity("pod-1")).issuer != first, "an SVID of the new CA", 20)


class Flaky(InProcessClient):
    """A server that cannot be reached while `down`."""

    down = False

    async def sign(self, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        if self.down:
            raise UnavailableError("unreachable")
        return await super().sign(requests)

    async def sync(self, registrations: Sequence[Registration]) -> None:
        if self.down:
            raise UnavailableError("unreachable")
        await super().sync(registrations)


async def test_identities_stay_while_the_server_is_away_and_are_renewed_when_it_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = authority(time.time, replace(HOURLY, svid_ttl=4))
    async with node(server) as one:
        client = Flaky(server, str(AGENT))
        agent = Agent(client)
        agent.register("pod-1", WEB)
        task = asyncio.create_task(agent.run(one.on_update))
        try:
            await eventually(lambda: one.told, "an identity", 20)
            client.down = True
            await eventually(lambda: "SVIDs are not renewed: unreachable" in caplog.text, "the failure in the log", 20)
            assert agent.identity("pod-1") is one.told[-1][1]
            count = len(one.told)
            client.down = False
            await eventually(lambda: len(one.told) > count, "a renewed identity", 20)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_event_loop_runs_on_while_many_svids_are_renewed() -> None:
    clock = ShiftedClock()
    async with node(authority(clock), *(f"pod-{number}" for number in range(400))) as one, running(one):
        clock.offset = 12 * HOUR + 60  # a new CA, and a renewal of all
        rounds = 0
        async with asyncio.timeout(120):
            while len(one.told) < 400:
                rounds += 1
                await asyncio.sleep(0)
        assert rounds > 100
