import asyncio
import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.common import jwtsvid
from nginx_mesh.identity.common.bundle import BundleError
from nginx_mesh.identity.common.client import RefusedError, Registration, SvidRequest, UnavailableError
from nginx_mesh.identity.common.ids import agent_spiffe_id, server_spiffe_id
from nginx_mesh.identity.common.keymanager import KeyManagerError
from nginx_mesh.identity.common.keymanager.disk import DiskKeyManager
from nginx_mesh.identity.common.keymanager.memory import MemoryKeyManager
from nginx_mesh.identity.common.keys import key_type_of
from nginx_mesh.identity.common.x509svid import spiffe_id_of
from nginx_mesh.identity.server.admission import Admission
from nginx_mesh.identity.server.attestation import Attested
from nginx_mesh.identity.server.authority import MAX_BATCH, Authority
from nginx_mesh.identity.server.carecords import CaRecordsError
from nginx_mesh.identity.server.csr import public_key_of
from nginx_mesh.identity.server.datastore import Datastore, DatastoreError
from nginx_mesh.identity.server.ownsvid import OwnSvid
from nginx_mesh.identity.server.upstream.base import UpstreamError
from tests.unit.identity.authorities import (
    AGENT,
    API,
    DAY,
    HOUR,
    HOURLY,
    KEY,
    MINUTE,
    NOW,
    WEB,
    Company,
    FakeClock,
    authority,
    csr,
    names_of,
    sqlite,
    started,
)
from tests.unit.identity.chains import Verifier

from .upstream import pki

ME = str(AGENT)
OTHER = str(agent_spiffe_id("example.org", "node-2"))


def roots(server: Authority) -> tuple[x509.Certificate, ...]:
    return server.bundles.own.x509_authorities


async def signed(server: Authority, spiffe_id: SpiffeId = WEB) -> tuple[x509.Certificate, ...]:
    """An SVID by the whole path of a request."""
    name = spiffe_id.path.replace("/", ".").strip(".")
    await server.register(ME, [Registration(name, str(spiffe_id))])
    (answer,) = await server.sign(ME, [SvidRequest(name, csr(spiffe_id))])
    assert answer.refused == ""
    return tuple(x509.load_der_x509_certificate(each) for each in answer.chain)


@contextmanager
def full_disk(directory: Path) -> Iterator[None]:
    """SQLite refuses what would change the database, as when its disk is full."""
    path = directory / "datastore.sqlite3"

    def run(*statements: str) -> None:
        with closing(sqlite3.connect(path, timeout=10)) as database, database:
            for statement in statements:
                database.execute(statement)

    tables = ("journals", "bundles", "nodes", "entries")
    run(
        *(
            f"CREATE TRIGGER full_{table}_{what} BEFORE {what} ON {table}"
            " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
            for table in tables
            for what in ("INSERT", "UPDATE")
        )
    )
    try:
        yield
    finally:
        run(*(f"DROP TRIGGER full_{table}_{what}" for table in tables for what in ("INSERT", "UPDATE")))


# --- rotation ---


async def test_a_rotation_goes_step_by_step_and_the_root_is_known_before_it_signs() -> None:
    clock = FakeClock()
    async with started(authority(clock)) as server:
        (first,) = roots(server)
        for hour, known, signer in ((11, 1, 0), (12, 2, 0), (19, 2, 0), (20, 2, 1), (24, 3, 1), (24.1, 2, 0)):
            clock.now = NOW + hour * HOUR
            await server.turn()
            assert len(roots(server)) == known
            assert server.current is not None
            assert server.current.certificate == roots(server)[signer]
        assert first not in roots(server)


async def test_jwt_keys_rotate_with_the_ca_and_are_known_before_they_sign() -> None:
    clock = FakeClock()
    async with started(authority(clock)) as server:
        known = {key.key_id for key in server.bundles.own.jwt_authorities}
        for hour in range(1, 72):
            clock.now = NOW + hour * HOUR
            token = server.issue_jwt(WEB, ["api"], 300)
            claims = jwtsvid.validate(token.token, "api", {"example.org": server.bundles.own}, clock.now)
            assert claims["sub"] == str(WEB)
            await server.turn()
            fresh = {key.key_id for key in server.bundles.own.jwt_authorities}
            assert jwtsvid.validate(token.token, "api", {"example.org": server.bundles.own}, clock.now)
            known |= fresh
        assert len(known) > 4


async def test_cas_and_what_was_issued_outlive_a_restart_with_keys_on_disk(tmp_path: Path) -> None:
    clock = FakeClock()
    async with started(
        authority(clock, keys=DiskKeyManager(tmp_path / "keys"), datastore=sqlite(tmp_path / "data", clock))
    ) as before:
        chain = await signed(before)
        clock.now += 12 * HOUR
        await before.turn()
        kept = (roots(before), before.current, before.upcoming)
    clock.now += MINUTE
    async with started(
        authority(clock, keys=DiskKeyManager(tmp_path / "keys"), datastore=sqlite(tmp_path / "data", clock))
    ) as after:
        assert roots(after) == kept[0]
        for was, now in zip(kept[1:], (after.current, after.upcoming), strict=True):
            assert was is not None
            assert now is not None
            assert (was.certificate, was.activate_at) == (now.certificate, now.activate_at)
        (entry,) = after.datastore.entries()
        assert entry.spiffe_id == str(WEB)
        assert Verifier(roots(after)).spiffe_id(chain[0], NOW) == str(WEB)


async def test_keys_in_memory_make_a_new_ca_and_the_bundle_keeps_the_old_root(tmp_path: Path) -> None:
    clock = FakeClock()
    async with started(authority(clock, datastore=sqlite(tmp_path, clock))) as before:
        (old,) = roots(before)
        chain = await signed(before)
    clock.now += MINUTE
    async with started(authority(clock, datastore=sqlite(tmp_path, clock))) as after:
        assert roots(after)[0] == old
        assert len(roots(after)) == 2
        assert after.current is not None
        assert after.current.certificate == roots(after)[1]
        assert Verifier(roots(after)).spiffe_id(chain[0], clock.now) == str(WEB)


async def test_a_bundle_that_was_lost_has_the_ca_of_the_records_again(tmp_path: Path) -> None:
    clock, keys = FakeClock(), MemoryKeyManager()
    async with started(authority(clock, keys=keys, datastore=sqlite(tmp_path, clock))) as before:
        bundle = before.bundles.own
        before.datastore.delete_relationship("example.org")
    async with started(authority(clock, keys=keys, datastore=sqlite(tmp_path, clock))) as after:
        assert after.bundles.own.x509_authorities == bundle.x509_authorities
        assert after.bundles.own.jwt_authorities == bundle.jwt_authorities
        assert after.datastore.bundle("example.org") is not None


async def test_keys_no_longer_needed_are_destroyed(tmp_path: Path) -> None:
    clock = FakeClock()
    keys = DiskKeyManager(tmp_path / "keys")
    async with started(authority(clock, keys=keys)) as server:
        for hour in range(0, 96, 4):
            clock.now = NOW + hour * HOUR
            await server.turn()
            there = {path.name for path in (tmp_path / "keys").iterdir()}
            assert len(there) == 2 + 2 * (server.upcoming is not None)


async def test_a_prepared_ca_that_is_not_wanted_any_more_takes_its_keys_along(tmp_path: Path) -> None:
    clock = FakeClock()
    async with started(authority(clock, keys=DiskKeyManager(tmp_path / "keys"))) as server:
        clock.now += 12 * HOUR
        await server.turn()
        server.reconfigure(replace(HOURLY, ca_key_type="ec-p384"))
        await server.turn()
        assert server.upcoming is not None
        assert key_type_of(server.upcoming.key) == "ec-p384"
        assert len(list((tmp_path / "keys").iterdir())) == 4


async def test_the_trust_domain_of_a_running_server_cannot_change() -> None:
    async with started(authority(FakeClock())) as server:
        with pytest.raises(ValueError, match="cannot change"):
            server.reconfigure(replace(HOURLY, trust_domain="mesh.test"))


# --- damage, full disks ---


async def test_damaged_keys_are_reported_and_left_as_they_are(tmp_path: Path) -> None:
    clock, directory = FakeClock(), tmp_path / "keys"
    async with started(authority(clock, keys=DiskKeyManager(directory), datastore=sqlite(tmp_path / "data", clock))):
        pass
    path = next(each for each in directory.iterdir() if each.name.startswith("x509-"))
    good = path.read_bytes()
    path.write_bytes(good[:-40])
    again = authority(clock, keys=DiskKeyManager(directory), datastore=sqlite(tmp_path / "data", clock))
    with pytest.raises(KeyManagerError, match=f"{path}: damaged"):
        async with started(again):
            pass
    assert path.read_bytes() == good[:-40]

    other = next(each for each in directory.iterdir() if each.name.startswith("jwt-"))
    path.write_bytes(other.read_bytes())
    swapped = authority(clock, keys=DiskKeyManager(directory), datastore=sqlite(tmp_path / "data", clock))
    with pytest.raises(CaRecordsError, match=r"CA records of server: authorities\[0\]: the key x509-.* is not that of"):
        async with started(swapped):
            pass
    assert path.read_bytes() == other.read_bytes()


async def test_damaged_ca_records_or_bundles_are_reported_and_left_as_they_are(tmp_path: Path) -> None:
    clock, keys = FakeClock(), MemoryKeyManager()
    async with started(authority(clock, keys=keys, datastore=sqlite(tmp_path, clock))) as server:
        records = server.datastore.ca_records("server")
        assert records is not None
        server.datastore.put_ca_records("server", records[:-1])
    with pytest.raises(CaRecordsError, match=r"sqlite3 datastore .*: CA records of server: "):
        async with started(authority(clock, keys=keys, datastore=sqlite(tmp_path, clock))):
            pass
    with closing(sqlite(tmp_path, clock)) as store:
        assert store.ca_records("server") == records[:-1]
        store.put_ca_records("server", records)
        bundle = store.bundle("example.org")
        store.put_bundle("example.org", b"{}", bundle)
    with pytest.raises(BundleError):
        async with started(authority(clock, keys=keys, datastore=sqlite(tmp_path, clock))):
            pass
    with closing(sqlite(tmp_path, clock)) as store:
        assert store.bundle("example.org") == b"{}"


async def test_a_bundle_that_is_damaged_while_we_run_stops_no_issuing(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    async with started(authority(clock)) as server:
        server.datastore.put_bundle("example.org", b"{}", server.datastore.bundle("example.org"))
        for hour in range(1, 40):
            clock.now = NOW + hour * HOUR
            await server.turn()
            assert Verifier(roots(server)).spiffe_id((await signed(server))[0], clock.now) == str(WEB)
        assert "the bundle of example.org" in caplog.text
        assert server.datastore.bundle("example.org") == b"{}"


@pytest.mark.parametrize("failing", ["keys", "datastore"])
async def test_a_failing_disk_never_stops_issuing_and_is_caught_up_with(
    failing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, directory = FakeClock(), tmp_path / "keys"
    store = sqlite(tmp_path / "data", clock)
    async with started(authority(clock, keys=DiskKeyManager(directory), datastore=store)) as server:
        await signed(server)

        async def hours(first: int, last: int) -> set[x509.Name]:
            issuers = set()
            for tens in range(first * 6, last * 6):
                clock.now = NOW + tens * 10 * MINUTE
                await server.turn()
                (answer,) = await server.sign(ME, [SvidRequest("ns.shop.sa.web", csr())])
                certificate = x509.load_der_x509_certificate(answer.chain[0])
                assert Verifier(roots(server)).spiffe_id(certificate, clock.now) == str(WEB)
                issuers.add(certificate.issuer)
            return issuers

        if failing == "keys":
            directory.rename(tmp_path / "gone")
            issuers = await hours(12, 26)
            (tmp_path / "gone").rename(directory)
        else:
            with full_disk(tmp_path / "data"):
                issuers = await hours(12, 26)
        assert len(issuers) == 2
        complaints = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(complaints) == 14 * 6  # each turn is 10 minutes after the other
        assert "CA not saved" in complaints[0].getMessage()
        await server.turn()
        now = (roots(server), server.current)
    async with started(
        authority(clock, keys=DiskKeyManager(directory), datastore=sqlite(tmp_path / "data", clock))
    ) as again:
        assert roots(again) == now[0]
        assert again.current is not None
        assert now[1] is not None
        assert again.current.certificate == now[1].certificate


async def test_a_ca_that_is_not_kept_yet_does_not_sign_before_it_has_to(tmp_path: Path) -> None:
    clock = FakeClock()
    async with started(authority(clock, datastore=sqlite(tmp_path, clock))) as server:
        first = server.current
        assert first is not None
        with full_disk(tmp_path):
            for hour in (12, 21, 23):
                clock.now = NOW + hour * HOUR
                await server.turn()
                assert server.current is first
        await server.turn()
        assert server.current is not first


@pytest.mark.parametrize("failing", ["keys", "datastore"])
async def test_a_first_ca_that_cannot_be_kept_is_an_error_until_it_can(failing: str, tmp_path: Path) -> None:
    clock, keys = FakeClock(), DiskKeyManager(tmp_path / "keys")
    company = Company()
    company.down = "off"
    store = sqlite(tmp_path / "data", clock)
    below = replace(HOURLY, upstream="company")
    async with started(authority(clock, below, keys=keys, datastore=store, upstream=company)) as late:
        company.down = ""

        async def attempts() -> None:
            for _ in range(4):
                clock.now += 2
                with pytest.raises((KeyManagerError, DatastoreError)):
                    await late.turn()
                assert late.current is None
                with pytest.raises(UnavailableError, match="there is no valid CA"):
                    await late.ensure_ca()

        if failing == "keys":
            (tmp_path / "keys").rename(tmp_path / "gone")
            await attempts()
            (tmp_path / "gone").rename(tmp_path / "keys")
        else:
            with full_disk(tmp_path / "data"):
                await attempts()
        await late.turn()
        assert late.current is not None


# --- upstream ---


async def test_an_upstream_that_is_down_delays_rotation_loudly_and_never_stops_issuing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, company = FakeClock(), Company()
    server = authority(clock, replace(HOURLY, upstream="company"), upstream=company)
    async with started(server):
        assert server.current is not None
        first = server.current
        company.down = "the company's CA: connection refused"
        for seconds in range(12 * HOUR, 24 * HOUR, 30):
            clock.now = NOW + seconds
            await server.turn()
            if seconds % HOUR == 0:
                chain = await signed(server)
                assert Verifier(roots(server)).spiffe_id(chain[0], clock.now, chain[1:]) == str(WEB)
        assert server.current is first
        assert server.problem == company.down
        complaints = [r.getMessage() for r in caplog.records if "the next CA is delayed" in r.getMessage()]
        assert 700 < len(complaints) < 800  # at most one a minute
        assert "connection refused" in complaints[0]
        assert "issues on until it expires, in 43200 s" in complaints[0]

        clock.now = NOW + DAY
        for _ in range(3):
            with pytest.raises(UnavailableError, match="no valid CA to issue from: the company's CA: connection"):
                await server.sign(ME, [SvidRequest("ns.shop.sa.web", csr())])
        company.down = ""
        clock.now += 60
        chain = await signed(server)
        assert server.problem == ""
        assert Verifier(roots(server)).spiffe_id(chain[0], clock.now, chain[1:]) == str(WEB)


async def test_a_server_starts_while_upstream_is_down_and_issues_as_soon_as_it_is_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, company = FakeClock(), Company()
    company.down = "down"
    async with started(authority(clock, replace(HOURLY, upstream="company"), upstream=company)) as server:
        assert "there is no CA yet" in caplog.text
        with pytest.raises(UnavailableError, match="no valid CA to issue from: down"):
            await server.ensure_ca()
        with pytest.raises(UpstreamError, match="down"):
            await server.turn()
        company.down = ""
        clock.now += 2
        assert len(await signed(server)) == 3


async def test_a_failure_of_upstream_while_the_clock_is_set_back_does_not_put_off_the_next_attempt() -> None:
    clock, company = FakeClock(), Company()
    async with started(authority(clock, replace(HOURLY, upstream="company"), upstream=company)) as server:
        company.down = "down"
        clock.now += 12 * HOUR
        await server.turn()
        company.down = ""
        clock.now -= HOUR / 2  # not due any more
        await server.turn()
        clock.now += 1 + HOUR / 2
        await server.turn()
        clock.now += 2
        await server.turn()
        assert server.upcoming is not None


async def test_a_restart_with_keys_in_memory_under_an_upstream_has_the_same_root(tmp_path: Path) -> None:
    clock, company = FakeClock(), Company()
    below = replace(HOURLY, upstream="company")
    async with started(authority(clock, below, datastore=sqlite(tmp_path, clock), upstream=company)) as before:
        chain = await signed(before)
        known = roots(before)
    async with started(authority(clock, below, datastore=sqlite(tmp_path, clock), upstream=company)) as after:
        assert roots(after) == known == (company.root.certificate,)
        again = await signed(after)
        assert again[1] != chain[1]
        for one in (chain, again):
            assert Verifier(known).spiffe_id(one[0], clock.now, one[1:]) == str(WEB)


async def test_from_self_signed_to_an_upstream_both_roots_are_known_before_and_after(tmp_path: Path) -> None:
    clock, keys, company = FakeClock(), DiskKeyManager(tmp_path / "keys"), Company()
    async with started(authority(clock, keys=keys, datastore=sqlite(tmp_path / "data", clock))) as before:
        own = await signed(before)
        (old_root,) = roots(before)
    below = replace(HOURLY, upstream="company")
    async with started(
        authority(clock, below, keys=keys, datastore=sqlite(tmp_path / "data", clock), upstream=company)
    ) as server:
        assert set(roots(server)) == {old_root, company.root.certificate}
        assert (await signed(server))[0].issuer == own[0].issuer  # not yet: others do not know the root
        clock.now += 4 * HOUR
        await server.turn()
        chain = await signed(server)
        assert len(chain) == 3
        assert [each.ca_id for each in server.retired] == [
            old_root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
        ]
        for one, at in ((own, NOW), (chain, clock.now)):
            assert Verifier(roots(server)).spiffe_id(one[0], at, one[1:]) == str(WEB)


async def test_new_roots_of_upstream_are_trusted_before_they_sign() -> None:
    clock, company = FakeClock(), Company()
    async with started(authority(clock, replace(HOURLY, upstream="company"), upstream=company)) as server:
        other = Company("Other")
        company.root, company.middle = other.root, other.middle
        clock.now += 10
        await server.turn()
        assert other.root.certificate in roots(server)
        assert len(roots(server)) == 2


# --- rotation on demand ---


async def test_a_ca_that_is_asked_for_signs_after_the_overlap_and_retires_the_present_one() -> None:
    clock = FakeClock()
    async with started(authority(clock)) as server:
        first = server.current
        assert first is not None
        asked = await server.rotate(60)
        assert asked.activate_at == NOW + 60
        assert len(roots(server)) == 2
        clock.now += 59
        await server.turn()
        assert server.current is first
        clock.now += 1
        await server.turn()
        assert server.current is not first
        assert [each.ca_id for each in server.retired] == [first.ca_id]
        again = await server.rotate(0)
        await server.turn()
        assert server.current is not None
        assert server.current.certificate == again.certificate
        assert len(server.retired) == 2
        clock.now = NOW + DAY + 62
        await server.turn()
        assert len(server.retired) < 2


async def test_a_ca_that_is_asked_for_is_what_the_settings_ask_for_now() -> None:
    clock = FakeClock()
    async with started(authority(clock)) as server:
        clock.now += 12 * HOUR
        await server.turn()
        server.reconfigure(replace(HOURLY, ca_key_type="ec-p384"))
        await server.rotate(0)
        await server.turn()
        assert server.current is not None
        assert key_type_of(server.current.key) == "ec-p384"
        assert server.retired


async def test_a_rotation_that_upstream_refuses_changes_nothing() -> None:
    company = Company()
    async with started(authority(FakeClock(), replace(HOURLY, upstream="company"), upstream=company)) as server:
        current = server.current
        company.down = "no"
        with pytest.raises(UpstreamError, match="no"):
            await server.rotate(0)
        assert (server.current, server.upcoming, server.retired) == (current, None, ())


# --- signing ---


async def test_svids_are_backdated_have_their_names_and_never_outlive_their_ca() -> None:
    clock = FakeClock()
    async with started(authority(clock)) as server:
        await server.register(ME, [Registration("pod", str(WEB), ("web.shop.svc", "web.shop", "web.shop.svc"))])
        clock.now += 2 * HOUR
        (answer,) = await server.sign(ME, [SvidRequest("pod", csr())])
        leaf = x509.load_der_x509_certificate(answer.chain[0])
        assert names_of(leaf) == ["web.shop.svc", "web.shop"]
        assert leaf.not_valid_before_utc.timestamp() == clock.now - 300
        assert leaf.not_valid_after_utc.timestamp() == clock.now + HOUR
        assert leaf.serial_number.bit_length() > 100
        clock.now = NOW + 19.9 * HOUR
        server.reconfigure(replace(HOURLY, svid_ttl=2 * DAY))
        (late,) = await server.sign(ME, [SvidRequest("pod", csr())])
        assert x509.load_der_x509_certificate(late.chain[0]).not_valid_after_utc == roots(server)[0].not_valid_after_utc


def tampered(request: bytes) -> bytes:
    return request[:-3] + bytes([request[-3] ^ 1]) + request[-2:]


def with_names(*names: x509.GeneralName) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(pki.name("x"))
    return (
        builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def by_key(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(pki.name("x"))
    return request.sign(key, digest).public_bytes(serialization.Encoding.DER)


BAD_REQUESTS = {
    "someone else's name": (csr(API), "asks for the name 'spiffe://example.org/ns/shop/sa/api', which is not reg"),
    "its own name and another's": (with_names(pki.uri(str(WEB)), pki.uri(str(API))), "asks for the name .*sa/api"),
    "a DNS name": (with_names(pki.uri(str(WEB)), x509.DNSName("api.shop.svc")), "asks for the name 'api.shop.svc'"),
    "a mail address": (with_names(pki.uri(str(WEB)), x509.RFC822Name("a@b.test")), "asks for the name"),
    "another trust domain": (csr(workload_id("evil.org", "shop", "web")), "evil.org.* is not registered"),
    "a name that is not canonical": (with_names(pki.uri(f"{WEB}/../api")), "which is not registered"),
    "an endless name": (with_names(pki.uri("spiffe://example.org/" + "a" * 4000)), "which is not registered"),
    "a short RSA key": (
        by_key(rsa.generate_private_key(65537, 1024)),  # noqa: S505
        "key of type rsa-1024 is not one of",
    ),
    "an odd curve": (by_key(ec.generate_private_key(ec.SECP521R1())), "secp521r1 is not one of"),
    "a weak curve": (by_key(ec.generate_private_key(ec.SECP192R1())), "csr: "),
    "an Ed25519 key": (by_key(ed25519.Ed25519PrivateKey.generate()), "Ed25519PublicKey is not one of"),
    "a signature by nobody": (tampered(csr()), "csr: "),
    "a certificate": (pki.make_ca("x").certificate.public_bytes(serialization.Encoding.DER), "csr: "),
    "nothing": (b"", "csr: "),
    "too much": (b"x" * 8193, "csr: 8193 bytes; the limit is 8192"),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
async def test_a_csr_that_is_unfit_is_refused_with_the_reason_and_logged(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    request, reason = BAD_REQUESTS[what]
    async with started(authority(FakeClock())) as server:
        await server.register(ME, [Registration("pod", str(WEB)), Registration("good", str(WEB))])
        refused, good = await server.sign(ME, [SvidRequest("pod", request), SvidRequest("good", csr())])
        assert re.search(reason, refused.refused)
        assert refused.chain == ()
        assert good.refused == ""
        assert f"{ME} is refused an SVID for entry 'pod': " in caplog.text


WHOLE = csr()  # each has a signature of its own, and so a length of its own


@given(st.binary(max_size=300) | st.integers(0, len(WHOLE) - 1).map(lambda at: WHOLE[:at]))
def test_garbage_in_place_of_a_request_is_refused(garbage: bytes) -> None:
    with pytest.raises(RefusedError, match="csr: "):
        public_key_of(garbage, WEB, ())


async def test_an_agent_gets_svids_of_its_own_workloads_only(caplog: pytest.LogCaptureFixture) -> None:
    async with started(authority(FakeClock())) as server:
        await server.register(ME, [Registration("mine", str(WEB))])
        await server.register(OTHER, [Registration("theirs", str(API))])
        for name in ("theirs", "nobody's", "", "x" * 10_000, "\0", "mine' OR 1=1"):
            (answer,) = await server.sign(ME, [SvidRequest(name, csr(API))])
            assert answer.refused == "it is not registered for this agent"
            with pytest.raises(RefusedError, match="not registered for this agent"):
                await server.sign_jwt(ME, name, ["api"])
        assert f"{ME} is refused an SVID for entry 'theirs'" in caplog.text
        with pytest.raises(RefusedError, match="entry theirs: this name is another agent's"):
            await server.register(ME, [Registration("theirs", str(WEB))])
        await server.unregister(ME, ["theirs", "mine"])
        assert [entry.entry_id for entry in server.datastore.entries()] == ["theirs"]
        with pytest.raises(RefusedError, match="501 requests at once; the limit is 500"):
            await server.sign(ME, [SvidRequest("mine", csr())] * (MAX_BATCH + 1))


@pytest.mark.parametrize(
    ("registration", "reason"),
    [
        (Registration("", str(WEB)), "entry_id '': 1 to 200 letters"),
        (Registration("a b", str(WEB)), "entry_id 'a b': 1 to 200"),
        (Registration("x" * 201, str(WEB)), "1 to 200"),
        (Registration("pod", "spiffe://evil.org/ns/shop/sa/web"), "spiffe_id: .* is not in the trust domain"),
        (Registration("pod", "spiffe://example.org/nginx-mesh/identity"), "is not that of a workload"),
        (Registration("pod", "spiffe://example.org/nginx-mesh/agent/node-1"), "is not that of a workload"),
        (Registration("pod", "spiffe://example.org"), "is not that of a workload"),
        (Registration("pod", "spiffe://example.org/ns/shop/sa/web/"), "path ends with a slash"),
        (Registration("pod", "spiffe://example.org/ns/shop/sa/../web"), "relative segment"),
        (Registration("pod", "spiffe://example.org/ns/shop/sa/%77eb"), "characters other than"),
        (Registration("pod", "SPIFFE://example.org/ns/shop/sa/web"), "does not start with"),
        (Registration("pod", "spiffe://Example.org/ns/shop/sa/web"), "trust domain 'Example.org'"),
        (Registration("pod", "spiffe://example.org/ns/shop/sa/" + "a" * 2048), "more than 2048 bytes"),
        (Registration("pod", str(WEB), ("*.shop.svc",)), "dns_names: .* is not a lower-case DNS name"),
        (Registration("pod", str(WEB), ("a.b",) * 201), "dns_names: 201 names; the limit is 200"),
        (Registration("pod", str(WEB), selectors=("x" * 1001,)), "selectors: at most"),
    ],
)
async def test_an_unfit_registration_is_refused_and_none_of_its_company_is_made(
    registration: Registration, reason: str
) -> None:
    async with started(authority(FakeClock())) as server:
        with pytest.raises(RefusedError, match=reason):
            await server.register(ME, [Registration("good", str(WEB)), registration], exactly=True)
        assert server.datastore.entries() == []


async def test_exactly_these_workloads_are_known_and_those_of_others_stay() -> None:
    async with started(authority(FakeClock())) as server:
        await server.register(OTHER, [Registration("theirs", str(API))])
        await server.register(ME, [Registration("a", str(WEB)), Registration("b", str(WEB))])
        cursor = server.datastore.changes(0).cursor
        await server.register(ME, [Registration("b", str(WEB)), Registration("c", str(WEB))], exactly=True)
        assert {entry.entry_id for entry in server.datastore.entries()} == {"b", "c", "theirs"}
        assert set(server.datastore.changes(cursor).entries) == {"a", "c"}  # what stays the same is not written


async def test_a_workload_forgotten_while_it_is_signed_harms_nobody() -> None:
    async with started(authority(FakeClock())) as server:
        names = [f"pod-{number}" for number in range(200)]
        await server.register(ME, [Registration(name, str(WEB)) for name in names])
        signing = asyncio.create_task(server.sign(ME, [SvidRequest(name, csr()) for name in names]))
        while not signing.done():
            await server.unregister(ME, names)
        assert all(answer.chain or answer.refused for answer in await signing)


async def test_jwt_svids_are_for_the_audience_that_was_asked_for_and_bounded() -> None:
    async with started(authority(FakeClock())) as server:
        await server.register(ME, [Registration("pod", str(WEB))])
        svid = await server.sign_jwt(ME, "pod", ["api", "db"])
        bundles = {"example.org": server.bundles.own}
        assert jwtsvid.validate(svid.token, "db", bundles, NOW)["sub"] == str(WEB) == str(svid.spiffe_id)
        assert svid.expires_at == NOW + 300
        for audience in ([], [""], ["x" * 1001], ["a"] * 21):
            with pytest.raises(RefusedError, match="audience: "):
                await server.sign_jwt(ME, "pod", audience)


async def test_the_servers_own_svid_is_renewed_at_half_life_when_its_ca_is_retired_and_when_the_clock_is_set() -> None:
    clock = FakeClock()
    async with started(authority(clock)) as server:
        own = OwnSvid(server, server_spiffe_id("example.org"))

        def serial() -> int:
            svid = own()
            assert svid is not None
            assert spiffe_id_of(svid.chain[0]) == server_spiffe_id("example.org")
            return svid.chain[0].serial_number

        first = serial()
        clock.now += HOUR / 2 - 1
        assert serial() == first
        clock.now += 1
        second = serial()
        assert second != first
        await server.rotate(0)
        await server.turn()
        third = serial()
        assert third != second
        clock.now += 2 * HOUR
        fourth = serial()
        clock.now -= HOUR
        assert serial() not in (third, fourth)
        clock.now += 30 * DAY
        former = own()  # there is no valid CA: better an old SVID than none
        assert former is not None


async def test_secrets_are_not_shown_when_things_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = FakeClock()
    async with started(authority(clock, keys=DiskKeyManager(tmp_path / "keys"))) as server:
        await signed(server)
        clock.now += 12 * HOUR
        await server.turn()
        svid = OwnSvid(server, server_spiffe_id("example.org"))()
        token = server.issue_jwt(WEB, ["api"], 60)
        shown = repr([server, server.current, server.upcoming, svid, token, server.issued]) + caplog.text
    secrets = [path.read_text().splitlines()[2] for path in (tmp_path / "keys").iterdir()]
    assert len(secrets) == 4
    assert not any(secret in shown for secret in (*secrets, "PRIVATE", token.token))


async def test_the_event_loop_is_free_while_a_slow_key_is_made_and_many_svids_are_signed() -> None:
    clock = FakeClock()
    async with started(authority(clock, replace(HOURLY, ca_key_type="rsa-4096"))) as server:
        names = [f"pod-{number}" for number in range(MAX_BATCH)]
        await server.register(ME, [Registration(name, str(WEB)) for name in names])
        request = csr()
        clock.now += 12 * HOUR
        work = asyncio.gather(server.turn(), server.sign(ME, [SvidRequest(name, request) for name in names]))
        rounds = 0
        while not work.done():
            rounds += 1
            await asyncio.sleep(0)
        await work
        assert rounds > 100


async def test_a_store_that_fails_is_told_from_a_refusal(tmp_path: Path) -> None:
    clock = FakeClock()
    store: Datastore = sqlite(tmp_path, clock)
    async with started(authority(clock, datastore=store)) as server:
        await signed(server)
        store.close()
        for call in (
            lambda: server.sign(ME, [SvidRequest("ns.shop.sa.web", csr())]),
            lambda: server.sign_jwt(ME, "ns.shop.sa.web", ["api"]),
            lambda: server.register(ME, [Registration("pod", str(WEB))]),
            lambda: server.unregister(ME, ["pod"]),
            lambda: server.entries(ME, 0),
            lambda: Admission(server).admit(AGENT, 1),
            lambda: Admission(server).attest(Attested(ME), "join_token", csr(None)),
        ):
            with pytest.raises(UnavailableError, match=r"sqlite3 datastore .*: closed"):
                await call()
        await server.turn()  # complains, and goes on with what is in memory
        assert server.current is not None
