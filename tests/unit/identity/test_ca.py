from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_mesh.identity.ca import AuthoritySet, CaSettings, CertificateAuthority
from nginx_mesh.identity.keys import KeyType, PrivateKey, generate_key, key_type_of
from nginx_mesh.identity.spiffe import SpiffeIdError, workload_id
from nginx_mesh.identity.x509svid import SvidError

NOW = 1_800_000_000
HOUR = 3600
DAY = 24 * HOUR
WEB = workload_id("example.org", "shop", "web")
LEAF = ec.generate_private_key(ec.SECP256R1()).public_key()
DAILY = CaSettings("example.org", "ec-p256", DAY)


def started(wanted: CaSettings = DAILY, at: float = NOW) -> CertificateAuthority:
    ca = CertificateAuthority(wanted)
    assert ca.advance(at)
    return ca


def test_a_ca_is_prepared_at_half_life_signs_from_five_sixths_and_leaves_when_expired() -> None:
    ca = started()
    first = ca.current
    assert first is not None
    assert ca.bundle() == (first.certificate,)

    assert ca.next_event(NOW) == NOW + 12 * HOUR
    assert not ca.advance(NOW + 12 * HOUR - 1)
    assert ca.advance(NOW + 12 * HOUR)
    second = ca.authorities.next
    assert second is not None
    assert ca.bundle() == (first.certificate, second.certificate)
    assert ca.current is first

    assert ca.next_event(NOW + 12 * HOUR) == NOW + 20 * HOUR
    assert not ca.advance(NOW + 20 * HOUR - 1)
    assert ca.advance(NOW + 20 * HOUR)
    assert ca.current is second
    assert ca.bundle() == (first.certificate, second.certificate)
    assert ca.authorities.old[0].key is None

    assert ca.next_event(NOW + 20 * HOUR) == NOW + 24 * HOUR  # second, made at 12 h, has half its life behind it
    assert not ca.advance(NOW + 24 * HOUR - 1)
    assert ca.advance(NOW + 24 * HOUR)
    third = ca.authorities.next
    assert third is not None
    assert first.certificate in ca.bundle()  # validity includes the last second
    assert ca.advance(NOW + 24 * HOUR + 1)
    assert ca.bundle() == (second.certificate, third.certificate)


def test_a_long_lived_ca_hands_over_in_its_last_month() -> None:
    ca = started(replace(DAILY, ttl=999_999 * HOUR))
    end = NOW + 999_999 * HOUR
    assert ca.next_event(NOW) == end - 30 * DAY
    ca.advance(end - 30 * DAY)
    assert ca.next_event(end - 30 * DAY) == end - 7 * DAY


def test_a_successor_prepared_late_is_still_announced_before_it_signs() -> None:
    ca = started()
    late = NOW + 23 * HOUR
    ca.advance(late)
    assert len(ca.bundle()) == 2
    assert ca.current is not None
    assert ca.current.created_at == NOW
    assert ca.next_event(late) == late + HOUR / 2
    ca.advance(late + HOUR / 2)
    assert ca.current.created_at == late


def test_an_announced_successor_replaces_a_ca_that_expired_unattended() -> None:
    ca = started()
    ca.advance(NOW + 12 * HOUR)
    announced = ca.authorities.next
    ca.advance(NOW + 25 * HOUR)
    assert ca.current is announced


def test_after_any_absence_there_is_a_usable_ca() -> None:
    ca = started()
    assert not ca.usable(NOW + 400 * DAY)
    with pytest.raises(SvidError, match="no valid CA"):
        ca.issue(LEAF, WEB, (), HOUR, NOW + 400 * DAY)
    assert ca.advance(NOW + 400 * DAY)
    assert ca.usable(NOW + 400 * DAY)
    assert len(ca.bundle()) == 1


def test_a_clock_set_back_before_the_ca_gets_a_new_ca_and_keeps_the_root() -> None:
    ca = started()
    root = ca.bundle()[0]
    back = NOW - HOUR
    assert ca.next_event(back) <= back
    assert ca.advance(back)
    assert ca.usable(back)
    assert ca.bundle()[1] == root


def test_a_clock_set_back_before_the_prepared_ca_never_lets_it_sign_early() -> None:
    ca = started()
    ca.advance(NOW + 12 * HOUR)
    ahead = ca.authorities.next
    assert ca.advance(NOW + 11 * HOUR)
    assert ca.authorities.next is None
    assert ca.advance(NOW + 12 * HOUR)
    assert ca.authorities.next not in (None, ahead)


def test_changed_settings_apply_to_the_next_ca_also_when_one_was_prepared() -> None:
    ca = started()
    ca.settings = replace(DAILY, key_type="ec-p384", ttl=2 * DAY)
    assert not ca.advance(NOW + HOUR)
    ca.advance(NOW + 12 * HOUR)
    prepared = ca.authorities.next
    assert prepared is not None
    assert key_type_of(prepared.key) == "ec-p384"
    assert prepared.life == 2 * DAY

    ca.settings = replace(DAILY, key_type="rsa-2048")
    assert ca.next_event(NOW + 13 * HOUR) <= NOW + 13 * HOUR
    assert ca.advance(NOW + 13 * HOUR)
    assert ca.current is not None
    assert key_type_of(ca.current.key) == "ec-p256"
    assert ca.authorities.next is not None
    assert key_type_of(ca.authorities.next.key) == "rsa-2048"
    assert ca.authorities.next.activate_at == NOW + 20 * HOUR


def test_a_new_trust_domain_gets_a_ca_at_once_and_keeps_the_old_root() -> None:
    ca = started()
    root = ca.bundle()[0]
    ca.settings = replace(DAILY, trust_domain="mesh.test")
    assert not ca.usable(NOW + 1)
    assert ca.advance(NOW + 1)
    assert root in ca.bundle()
    leaf = ca.issue(LEAF, workload_id("mesh.test", "shop", "web"), (), HOUR, NOW + 1)
    assert leaf.issuer == ca.bundle()[1].subject != root.subject


def test_svids_are_backdated_and_never_outlive_their_ca() -> None:
    ca = started()
    leaf = ca.issue(LEAF, WEB, (), HOUR, NOW + 2 * HOUR)
    assert leaf.not_valid_before_utc.timestamp() == NOW + 2 * HOUR - 300
    assert leaf.not_valid_after_utc.timestamp() == NOW + 3 * HOUR
    first = ca.issue(LEAF, WEB, (), 48 * HOUR, NOW)
    assert first.not_valid_before_utc == ca.bundle()[0].not_valid_before_utc
    assert first.not_valid_after_utc == ca.bundle()[0].not_valid_after_utc


def test_serials_are_random_and_long() -> None:
    ca = started()
    serials = {ca.issue(LEAF, WEB, (), HOUR, NOW).serial_number for _ in range(50)}
    assert len(serials) == 50
    assert max(serials).bit_length() > 128


events = st.lists(
    st.tuples(
        st.sampled_from(["wait", "next event", "jump", "key type", "ttl", "trust domain"]),
        st.floats(0, 40 * DAY),
        st.sampled_from(["ec-p256", "ec-p384"]),
    ),
    max_size=25,
)


@given(events)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_there_is_a_usable_ca_and_an_event_ahead(happenings: list[tuple[str, float, KeyType]]) -> None:
    ca, now = started(), float(NOW)
    for what, amount, key_type in happenings:
        match what:
            case "wait":
                now += amount / 20
            case "next event":
                now = ca.next_event(now)
            case "jump":
                now += amount - 20 * DAY
            case "key type":
                ca.settings = replace(ca.settings, key_type=key_type)
            case "ttl":
                ca.settings = replace(ca.settings, ttl=10 + int(amount))
            case "trust domain":
                ca.settings = replace(ca.settings, trust_domain=f"{key_type}.test")
        due = ca.next_event(now) <= now
        assert ca.advance(now) == due
        assert ca.usable(now)
        assert ca.next_event(now) > now
        assert not ca.advance(now)
        state = ca.authorities
        assert all(old.key is None and now < old.expires_at for old in state.old)
        assert len(ca.bundle()) == 1 + (state.next is not None) + len(state.old)
        assert len(set(ca.bundle())) == len(ca.bundle())


@given(st.lists(st.floats(0.5, 11 * HOUR), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_attended_in_time_no_ca_signs_before_it_was_announced_for_a_while(pauses: list[float]) -> None:
    ca, now = started(), float(NOW)
    announced = dict.fromkeys(ca.bundle(), NOW - DAY)
    for pause in pauses:
        now += pause
        ca.advance(now)
        for certificate in ca.bundle():
            announced.setdefault(certificate, int(now))
        assert ca.current is not None
        if ca.current.created_at != NOW:
            assert now - announced[ca.current.certificate] >= 15 * 60


def test_keys_are_made_of_the_type_that_is_asked_for_and_only_when_needed() -> None:
    made: list[KeyType] = []

    def counting(key_type: KeyType) -> PrivateKey:
        made.append(key_type)
        return generate_key(key_type)

    ca = CertificateAuthority(DAILY, AuthoritySet(), counting)
    for hour in range(49):
        ca.advance(NOW + hour * HOUR)
    assert made == ["ec-p256"] * 5  # the first, then one each 12 h


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key_type": "dsa"}, "CA key type 'dsa' is not one of ec-p256"),
        ({"ttl": 1}, "CA TTL of 1 s is not between"),
        ({"ttl": 999_999 * HOUR + 1}, "is not between"),
        ({"trust_domain": "Example.org"}, "trust domain 'Example.org'"),
    ],
)
def test_bad_settings_are_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises((ValueError, SpiffeIdError), match=reason):
        replace(DAILY, **change)  # type: ignore[arg-type]
