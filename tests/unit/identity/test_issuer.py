import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_mesh.compile.state import Identity
from nginx_mesh.identity.issuer import JOURNAL, IdentitySettings, SvidIssuer
from nginx_mesh.identity.journal import JournalError
from nginx_mesh.identity.keymanager import KeyManagerError, open_key_manager
from nginx_mesh.identity.keymanager.disk import DiskKeyManager
from nginx_mesh.identity.keymanager.memory import MemoryKeyManager
from nginx_mesh.identity.keys import from_pem
from nginx_mesh.identity.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.x509svid import SvidError

from .chains import PURPOSES, Verifier, openssl_verify

NOW = 1_800_000_000
MINUTE, HOUR, DAY = 60, 3600, 86_400
WEB = workload_id("example.org", "shop", "web")
API = workload_id("example.org", "shop", "api")
HOURLY = IdentitySettings("example.org", svid_ttl=HOUR, ca_ttl=DAY)


class FakeClock:
    """A clock that only moves when told to."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class ShiftedClock:
    """The real clock plus an offset, for setting it."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


class Updates:
    """What a runtime is told: every identity of every workload, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Identity]] = []
        self._arrived = asyncio.Event()

    def __call__(self, workload: str, identity: Identity) -> None:
        self.all.append((workload, identity))
        self._arrived.set()

    async def until(self, count: int, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while len(self.all) < count:
                self._arrived.clear()
                await self._arrived.wait()


def issuer(
    clock: Callable[[], float], wanted: IdentitySettings = HOURLY, keys: MemoryKeyManager | DiskKeyManager | None = None
) -> SvidIssuer:
    return SvidIssuer(wanted, keys or MemoryKeyManager(), clock, random.Random(7))


@asynccontextmanager
async def running(one: SvidIssuer) -> AsyncIterator[Updates]:
    updates = Updates()
    task = asyncio.create_task(one.run(updates))
    try:
        await asyncio.sleep(0.05)
        yield updates
        assert not task.done(), "run() ended by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def leaf(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificates(identity.svid.encode())[0]


def roots(identity: Identity) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(identity.bundle.encode())


def accepted(identity: Identity, at: float) -> bool:
    return Verifier(roots(identity)).spiffe_id(leaf(identity), at) == identity.spiffe_id


def test_registering_gives_a_complete_identity(tmp_path: Path) -> None:
    identity = issuer(FakeClock()).register("pod-1", WEB, ["web.shop.svc.cluster.local", "web"])
    assert identity.spiffe_id == str(WEB)
    for purpose in PURPOSES:
        assert openssl_verify(tmp_path, identity.svid, identity.bundle, purpose, NOW) == ""
    certificate = leaf(identity)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["web.shop.svc.cluster.local", "web"]
    assert identity.key.startswith("-----BEGIN PRIVATE KEY-----")
    assert from_pem(identity.key).public_key() == certificate.public_key()
    assert certificate.not_valid_before_utc.timestamp() == NOW - 300
    assert certificate.not_valid_after_utc.timestamp() == NOW + HOUR


def test_two_pods_of_one_service_account_have_keys_of_their_own() -> None:
    one = issuer(FakeClock())
    assert one.register("pod-1", WEB).key != one.register("pod-2", WEB).key


def test_registering_again_reissues_only_for_new_names() -> None:
    one = issuer(FakeClock())
    first = one.register("pod-1", WEB, ["a", "b", "a"])
    assert one.register("pod-1", WEB, ["a", "b"]) is first
    second = one.register("pod-1", WEB, ["a", "c"])
    assert second.svid != first.svid
    assert one.identity("pod-1") is second
    assert one.register("pod-1", API, ["a", "c"]).spiffe_id == str(API)


def test_a_refused_registration_changes_nothing() -> None:
    one = issuer(FakeClock())
    first = one.register("pod-1", WEB)
    with pytest.raises(SvidError, match="not a lower-case DNS name"):
        one.register("pod-1", WEB, ["*"])
    with pytest.raises(SvidError, match="outside the CA's trust domain"):
        one.register("pod-2", workload_id("evil.org", "shop", "web"))
    with pytest.raises(SvidError, match="has no path"):
        one.register("pod-2", SpiffeId("example.org"))
    assert one.identity("pod-1") is first
    assert one.identity("pod-2") is None


def test_private_keys_are_not_shown_when_things_are_logged() -> None:
    one = issuer(FakeClock())
    identity = one.register("pod-1", WEB)
    assert "PRIVATE" not in repr(identity) + repr(one) + repr(one._workloads)


async def test_svids_are_renewed_by_half_their_life_and_not_all_at_once() -> None:
    clock = FakeClock()
    one, updates = issuer(clock), Updates()
    for number in range(50):
        one.register(f"pod-{number}", WEB)
    clock.now = NOW + 0.4 * HOUR - 1
    assert one.due(clock.now) == []
    clock.now = NOW + 0.45 * HOUR
    assert 10 < len(one.due(clock.now)) < 40
    clock.now = NOW + 0.5 * HOUR
    assert len(one.due(clock.now)) == 50
    await one.turn(updates)
    assert one.due(clock.now) == []
    assert [name for name, _ in updates.all] == [f"pod-{number}" for number in range(50)]
    for name, identity in updates.all:
        assert one.identity(name) is identity
        assert leaf(identity).not_valid_after_utc.timestamp() == clock.now + HOUR


async def test_an_unregistered_workload_is_forgotten() -> None:
    clock = FakeClock()
    one, updates = issuer(clock), Updates()
    one.register("pod-1", WEB)
    one.unregister("pod-1")
    one.unregister("never-seen")
    assert one.identity("pod-1") is None
    clock.now += HOUR
    await one.turn(updates)
    assert updates.all == []


async def test_a_workload_unregistered_while_others_are_told_is_left_alone() -> None:
    clock = FakeClock()
    one, told = issuer(clock), []
    for name in ("pod-1", "pod-2"):
        one.register(name, WEB)

    def on_update(workload: str, _identity: Identity) -> None:
        told.append(workload)
        one.unregister("pod-2")

    clock.now += 12 * HOUR  # a new bundle and new SVIDs
    await one.turn(on_update)
    assert set(told) == {"pod-1"}
    assert one.identity("pod-2") is None


async def test_a_new_root_reaches_every_workload_before_anything_else_changes() -> None:
    clock = FakeClock()
    one, updates = issuer(clock, replace(HOURLY, svid_ttl=2 * DAY)), Updates()
    before = {name: one.register(name, WEB) for name in ("pod-1", "pod-2", "pod-3")}
    clock.now = NOW + 12 * HOUR
    await one.turn(updates)
    assert [name for name, _ in updates.all] == list(before)
    for name, identity in updates.all:
        assert identity.svid == before[name].svid
        assert identity.key == before[name].key
        assert identity.bundle == one.bundle
        assert len(roots(identity)) == 2


async def test_when_the_next_ca_takes_over_every_svid_is_reissued_under_it() -> None:
    clock = FakeClock()
    one, updates = issuer(clock, replace(HOURLY, svid_ttl=2 * DAY)), Updates()
    first = one.register("pod-1", WEB)
    for hour in (12, 20):
        clock.now = NOW + hour * HOUR
        await one.turn(updates)
    last = updates.all[-1][1]
    assert leaf(last).issuer != leaf(first).issuer
    assert accepted(last, clock.now)
    assert leaf(first) != leaf(last)


async def test_svids_cut_short_by_their_ca_are_not_renewed_over_and_over() -> None:
    clock = FakeClock()
    one, updates = issuer(clock, replace(HOURLY, svid_ttl=30 * DAY)), Updates()
    one.register("pod-1", WEB)
    for minute in range(0, 24 * 60, 5):
        clock.now = NOW + minute * MINUTE
        await one.turn(updates)
    assert len(updates.all) == 2  # a new root at 12 h, a new CA at 20 h


async def test_one_consumer_that_fails_keeps_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    one, told = issuer(clock), []
    for name in ("pod-1", "pod-2"):
        one.register(name, WEB)

    def on_update(workload: str, _identity: Identity) -> None:
        told.append(workload)
        if workload == "pod-1":
            raise OSError("the sidecar is gone")

    clock.now += HOUR / 2
    await one.turn(on_update)
    assert told == ["pod-1", "pod-2"]
    assert "workload pod-1" in caplog.text


async def test_a_shorter_ttl_reissues_what_would_live_too_long_and_a_longer_one_waits() -> None:
    clock = FakeClock()
    one, updates = issuer(clock), Updates()
    one.register("pod-1", WEB)
    one.reconfigure(replace(HOURLY, svid_ttl=20))
    await one.turn(updates)
    assert len(updates.all) == 1
    assert leaf(updates.all[0][1]).not_valid_after_utc.timestamp() == NOW + 20
    one.reconfigure(HOURLY)
    await one.turn(updates)
    assert len(updates.all) == 1
    clock.now += 10
    await one.turn(updates)
    assert leaf(updates.all[1][1]).not_valid_after_utc.timestamp() == NOW + 10 + HOUR


async def test_a_new_trust_domain_moves_every_workload_and_keeps_the_old_root_for_a_while() -> None:
    clock = FakeClock()
    one, updates = issuer(clock), Updates()
    first = one.register("pod-1", WEB)
    one.reconfigure(replace(HOURLY, trust_domain="mesh.test"))
    await one.turn(updates)
    moved = updates.all[-1][1]
    assert moved.spiffe_id == "spiffe://mesh.test/ns/shop/sa/web"
    assert accepted(moved, NOW)
    assert Verifier(roots(moved)).spiffe_id(leaf(first), NOW) == str(WEB)
    assert one.register("pod-1", workload_id("mesh.test", "shop", "web")) is moved


async def test_a_registration_right_after_the_clock_left_the_cas_life_still_succeeds() -> None:
    clock = FakeClock()
    one, updates = issuer(clock), Updates()
    one.register("pod-1", WEB)
    for clock.now in (NOW + 400 * DAY, NOW - 400 * DAY):
        assert accepted(one.register(f"pod-{clock.now}", WEB), clock.now)
        await one.turn(updates)
        identity = one.identity("pod-1")
        assert identity is not None
        assert accepted(identity, clock.now)


async def test_a_clock_set_back_reissues_under_the_same_ca_what_is_not_valid_yet() -> None:
    clock = FakeClock()
    one, updates = issuer(clock), Updates()
    clock.now += 6 * HOUR
    first = one.register("pod-1", WEB)
    clock.now -= HOUR
    await one.turn(updates)
    ((_, second),) = updates.all
    assert second.bundle == first.bundle
    assert accepted(second, clock.now)


@given(
    st.lists(
        st.tuples(st.sampled_from(["wait", "jump", "ttl", "register", "unregister"]), st.floats(0, 1)), max_size=30
    )
)
@settings(max_examples=60, deadline=None)
def test_after_every_turn_every_workload_has_a_valid_identity(happenings: list[tuple[str, float]]) -> None:
    async def play() -> None:
        clock = FakeClock()
        one, held = issuer(clock), {}
        for number, (what, amount) in enumerate(happenings):
            match what:
                case "wait":
                    clock.now += amount * HOUR
                case "jump":
                    clock.now += (amount - 0.5) * 4 * DAY
                case "ttl":
                    one.reconfigure(replace(HOURLY, svid_ttl=2 + int(amount * DAY)))
                case "register":
                    held[f"pod-{number}"] = one.register(f"pod-{number}", WEB)
                case "unregister":
                    one.unregister(next(iter(held), ""))
                    held.pop(next(iter(held), ""), None)
            await one.turn(held.__setitem__)
            for name, identity in held.items():
                assert one.identity(name) is identity
                assert identity.bundle == one.bundle
                assert accepted(identity, clock.now)
                life = leaf(identity).not_valid_after_utc.timestamp() - clock.now
                assert 0 < life <= one.settings.svid_ttl + 2

    asyncio.run(play())


@pytest.mark.parametrize(
    ("svid_ttl", "step"), [(HOUR, 15 * MINUTE), (2 * DAY, HOUR)], ids=["hourly", "cut short by the CA"]
)
async def test_over_weeks_of_rotation_every_live_svid_is_accepted_by_every_verifier(
    svid_ttl: int, step: int, tmp_path: Path
) -> None:
    """Verifiers: every workload; one that takes each update only when the next comes; one that is 3 h late."""
    clock = FakeClock()
    one = issuer(clock, replace(HOURLY, svid_ttl=svid_ttl))
    bundles: dict[str, list[tuple[float, str]]] = defaultdict(list)
    live: list[Identity] = []

    def on_update(workload: str, identity: Identity) -> None:
        bundles[workload].append((clock.now, identity.bundle))
        live.append(identity)

    for name, spiffe_id in (("pod-1", WEB), ("pod-2", WEB), ("pod-3", API)):
        on_update(name, one.register(name, spiffe_id))
    verifiers: dict[str, Verifier] = {}
    issuers, sizes, checked_by_openssl = set(), set(), set()
    for clock.now in range(NOW, NOW + 21 * DAY, step):
        await one.turn(on_update)
        live = [identity for identity in live if leaf(identity).not_valid_after_utc.timestamp() > clock.now]
        in_use = set()
        for updates in bundles.values():
            in_use.add(updates[-1][1])
            in_use.add(updates[-2 if len(updates) > 1 else -1][1])
            in_use.add(next((b for at, b in reversed(updates) if at <= clock.now - 3 * HOUR), updates[0][1]))
        for pem in in_use:
            verifier = verifiers.setdefault(pem, Verifier(x509.load_pem_x509_certificates(pem.encode())))
            for identity in live:
                certificate = leaf(identity)
                assert verifier.spiffe_id(certificate, clock.now) == identity.spiffe_id
                pair = (certificate.issuer, pem)
                if pair not in checked_by_openssl:
                    checked_by_openssl.add(pair)
                    assert openssl_verify(tmp_path, identity.svid, pem, "sslclient", clock.now) == ""
                issuers.add(certificate.issuer)
        sizes.add(one.bundle.count("BEGIN CERTIFICATE"))
    assert len(issuers) > 38  # a CA signs for half a day
    assert max(sizes) <= 3


def test_cas_come_back_from_disk_and_verify_what_was_issued_before(tmp_path: Path) -> None:
    clock = FakeClock()
    before = issuer(clock, keys=DiskKeyManager(tmp_path / "keys"))
    first = before.register("pod-1", WEB)
    clock.now += HOUR
    after = issuer(clock, keys=DiskKeyManager(tmp_path / "keys"))
    second = after.register("pod-1", WEB)
    assert second.bundle == first.bundle
    assert second.key != first.key
    assert first.key not in (tmp_path / "keys" / JOURNAL).read_text()
    assert Verifier(roots(first)).spiffe_id(leaf(second), clock.now) == str(WEB)


async def test_a_rotation_is_on_disk_when_workloads_hear_of_it(tmp_path: Path) -> None:
    clock = FakeClock()
    one = issuer(clock, keys=DiskKeyManager(tmp_path / "keys"))
    one.register("pod-1", WEB)
    clock.now += 12 * HOUR
    heard: list[str] = []

    def on_update(_workload: str, identity: Identity) -> None:
        heard.append(identity.bundle)
        assert issuer(clock, keys=DiskKeyManager(tmp_path / "keys")).bundle == identity.bundle

    await one.turn(on_update)
    assert len(heard) == 2  # the bundle, then the renewed SVID


def test_memory_forgets_the_cas(tmp_path: Path) -> None:
    clock = FakeClock()
    first = SvidIssuer(HOURLY, open_key_manager("memory", tmp_path), clock)
    assert SvidIssuer(HOURLY, open_key_manager("memory", tmp_path), clock).bundle != first.bundle
    assert list(tmp_path.iterdir()) == []


def test_damaged_cas_are_reported_and_left_as_they_are(tmp_path: Path) -> None:
    keys = DiskKeyManager(tmp_path / "keys")
    issuer(FakeClock(), keys=keys)
    path = tmp_path / "keys" / JOURNAL
    good = path.read_bytes()
    path.write_bytes(good[:-40])
    with pytest.raises(KeyManagerError, match=f"{path}: damaged"):
        issuer(FakeClock(), keys=keys)
    assert path.read_bytes() == good[:-40]
    path.write_bytes(good)
    keys.put(JOURNAL, b"{}")
    with pytest.raises(JournalError, match=f"{tmp_path}.*: {JOURNAL}: .*missing required field"):
        issuer(FakeClock(), keys=keys)
    assert keys.get(JOURNAL) == b"{}"


async def test_a_failing_disk_never_stops_issuing_and_is_caught_up_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, directory = FakeClock(), tmp_path / "keys"
    one, updates = issuer(clock, keys=DiskKeyManager(directory)), Updates()
    one.register("pod-1", WEB)
    directory.rename(tmp_path / "gone")
    for minute in range(12 * 60, 21 * 60, 10):
        clock.now = NOW + minute * MINUTE
        await one.turn(updates)
        identity = one.identity("pod-1")
        assert identity is not None
        assert accepted(identity, clock.now)
    assert len({leaf(identity).issuer for _, identity in updates.all}) == 2
    complaints = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(complaints) == 9 * 6
    assert "CA not saved" in complaints[0].getMessage()
    await one.turn(updates)
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 9 * 6  # at most one a minute

    (tmp_path / "gone").rename(directory)
    await one.turn(updates)
    assert issuer(clock, keys=DiskKeyManager(directory)).bundle == one.bundle


def test_a_disk_that_cannot_keep_the_first_ca_is_an_error(tmp_path: Path) -> None:
    keys = DiskKeyManager(tmp_path / "keys")
    (tmp_path / "keys").rmdir()
    with pytest.raises(KeyManagerError, match="No such file"):
        issuer(FakeClock(), keys=keys)


async def test_running_keeps_short_lived_svids_valid_at_every_moment() -> None:
    one = issuer(time.time, replace(HOURLY, svid_ttl=4))
    one.register("pod-1", WEB)
    end = time.monotonic() + 6
    async with running(one) as updates:
        while time.monotonic() < end:
            identity = one.identity("pod-1")
            assert identity is not None
            assert accepted(identity, time.time())
            await asyncio.sleep(0.05)
    renewals = [leaf(identity).not_valid_after_utc.timestamp() for _, identity in updates.all]
    assert 2 <= len(renewals) <= 6
    assert all(earlier < later for earlier, later in pairwise(renewals))


@pytest.mark.parametrize("hours", [1, -1, 24 * 400, -24 * 400])
async def test_a_clock_that_is_set_is_noticed_within_two_seconds(hours: int) -> None:
    clock = ShiftedClock()
    one = issuer(clock)
    for name in ("pod-1", "pod-2"):
        one.register(name, WEB)
    async with running(one) as updates:
        assert updates.all == []
        clock.offset = hours * HOUR
        await updates.until(2 if abs(hours) == 1 else 4, seconds=2)
        await asyncio.sleep(0.05)
    newest = dict(updates.all)
    assert sorted(newest) == ["pod-1", "pod-2"]
    assert all(accepted(identity, clock()) for identity in newest.values())


async def test_new_settings_are_applied_at_once() -> None:
    one = issuer(time.time)
    one.register("pod-1", WEB)
    async with running(one) as updates:
        one.reconfigure(replace(HOURLY, svid_ttl=20))
        await updates.until(1, seconds=0.5)
    assert leaf(updates.all[0][1]).not_valid_after_utc.timestamp() <= time.time() + 20


async def test_the_event_loop_is_not_held_up_by_a_slow_ca_key_or_many_svids() -> None:
    clock = ShiftedClock()
    one = issuer(clock, replace(HOURLY, ca_key_type="rsa-4096"))
    for number in range(400):
        one.register(f"pod-{number}", WEB)
    longest = 0.0
    async with running(one) as updates:
        clock.offset = 12 * HOUR + 60  # a new CA, and a renewal of all
        last = time.monotonic()
        async with asyncio.timeout(60):
            while len(updates.all) < 800:
                await asyncio.sleep(0)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"svid_ttl": 1}, "SVID TTL of 1 s"),
        ({"ca_ttl": 1}, "CA TTL of 1 s"),
        ({"ca_key_type": "dsa"}, "CA key type 'dsa'"),
        ({"trust_domain": ""}, "trust domain is empty"),
    ],
)
def test_bad_settings_are_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(HOURLY, **change)  # type: ignore[arg-type]


def test_keys_in_identities_are_unencrypted_pkcs8_for_nginx() -> None:
    identity = issuer(FakeClock()).register("pod-1", WEB)
    key = serialization.load_pem_private_key(identity.key.encode(), None)
    assert key.public_key() == leaf(identity).public_key()
