from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_mesh.identity.common.keys import KeyType, key_type_of
from nginx_mesh.identity.common.x509svid import subject_key_id
from nginx_mesh.identity.server.ca import (
    CaSet,
    CaSettings,
    Retired,
    Step,
    activated,
    activation,
    next_step,
    usable,
)
from tests.unit.identity.authorities import DAY, HOUR, NOW, advanced, new_ca

from .upstream import pki

DAILY = CaSettings("example.org", "ec-p256", DAY)


def started(wanted: CaSettings = DAILY) -> CaSet:
    return advanced(CaSet(), wanted, NOW)


def is_idle_until(at: float, cas: CaSet, wanted: CaSettings) -> bool:
    """Whether nothing is to be done before `at`, and something then."""
    return next_step(cas, wanted, at - 1) is None and next_step(cas, wanted, at) is not None


def test_a_ca_is_prepared_at_half_life_and_signs_from_five_sixths() -> None:
    cas = started()
    first = cas.current
    assert next_step(cas, DAILY, NOW + 12 * HOUR - 1) is None
    assert next_step(cas, DAILY, NOW + 12 * HOUR) is Step.PREPARE
    cas = advanced(cas, DAILY, NOW + 12 * HOUR)
    assert cas.current is first
    second = cas.next
    assert second is not None

    assert next_step(cas, DAILY, NOW + 20 * HOUR - 1) is None
    assert next_step(cas, DAILY, NOW + 20 * HOUR) is Step.ACTIVATE
    cas = advanced(cas, DAILY, NOW + 20 * HOUR)
    assert cas == CaSet(second, None)
    assert is_idle_until(NOW + 24 * HOUR, cas, DAILY)  # half of the second's life


def test_a_long_lived_ca_hands_over_in_its_last_month() -> None:
    wanted = replace(DAILY, ttl=999_999 * HOUR)
    end = NOW + 999_999 * HOUR
    cas = started(wanted)
    assert is_idle_until(end - 30 * DAY, cas, wanted)
    cas = advanced(cas, wanted, end - 30 * DAY)
    assert is_idle_until(end - 7 * DAY, cas, wanted)


def test_a_successor_prepared_late_is_still_known_before_it_signs() -> None:
    late = NOW + 23 * HOUR
    cas = advanced(started(), DAILY, late)
    assert cas.current is not None
    assert cas.current.created_at == NOW
    assert is_idle_until(late + HOUR / 2, cas, DAILY)
    cas = advanced(cas, DAILY, late + HOUR / 2)
    assert cas.current is not None
    assert cas.current.created_at == late


def test_a_prepared_successor_replaces_a_ca_that_expired_unattended() -> None:
    cas = advanced(started(), DAILY, NOW + 12 * HOUR)
    prepared = cas.next
    assert advanced(cas, DAILY, NOW + 25 * HOUR).current is prepared


def test_a_clock_set_back_before_the_ca_gets_a_new_one() -> None:
    cas = started()
    assert next_step(cas, DAILY, NOW - HOUR) is Step.PREPARE
    current = advanced(cas, DAILY, NOW - HOUR).current
    assert current is not None
    assert current.created_at == NOW - HOUR


def test_a_clock_set_back_before_the_prepared_ca_never_lets_it_sign() -> None:
    cas = advanced(started(), DAILY, NOW + 12 * HOUR)
    ahead = cas.next
    assert next_step(cas, DAILY, NOW + 11 * HOUR) is Step.DISCARD
    cas = advanced(cas, DAILY, NOW + 11 * HOUR)
    assert cas.next is None
    assert advanced(cas, DAILY, NOW + 12 * HOUR).next not in (None, ahead)


def test_changed_settings_apply_to_the_next_ca_also_when_one_was_prepared() -> None:
    changed = replace(DAILY, key_type="ec-p384", ttl=2 * DAY)
    cas = started()
    assert next_step(cas, changed, NOW + HOUR) is None
    cas = advanced(cas, changed, NOW + 12 * HOUR)
    assert cas.next is not None
    assert (key_type_of(cas.next.key), cas.next.life) == ("ec-p384", 2 * DAY)

    again = replace(DAILY, key_type="rsa-2048")
    assert next_step(cas, again, NOW + 13 * HOUR) is Step.DISCARD
    cas = advanced(cas, again, NOW + 13 * HOUR)
    assert cas.current is not None
    assert key_type_of(cas.current.key) == "ec-p256"
    assert cas.next is not None
    assert (key_type_of(cas.next.key), cas.next.activate_at) == ("rsa-2048", NOW + 20 * HOUR)


def test_a_new_trust_domain_gets_a_ca_at_once() -> None:
    moved = replace(DAILY, trust_domain="mesh.test")
    cas = started()
    assert not usable(cas.current, moved, NOW + 1)
    current = advanced(cas, moved, NOW + 1).current
    assert current is not None
    assert current.trust_domain == "mesh.test"


def test_under_another_upstream_a_ca_is_prepared_at_once_and_signs_after_the_usual_notice() -> None:
    company = replace(DAILY, upstream="company-1")
    cas = advanced(started(), company, NOW + HOUR)
    assert cas.current is not None
    assert cas.next is not None
    assert cas.next.activate_at == NOW + HOUR + 4 * HOUR
    first = cas.current
    cas = advanced(cas, company, NOW + 5 * HOUR)
    assert cas.retired == (Retired(first.ca_id, first.not_after),)


def test_a_retired_ca_is_remembered_until_it_expires() -> None:
    cas = started()
    first = cas.current
    assert first is not None
    asked_for = new_ca(DAILY, NOW + HOUR, NOW + HOUR, retires_previous=True)
    cas = activated(CaSet(first, asked_for), NOW + HOUR)
    assert cas.retired == (Retired(first.ca_id, first.not_after),)
    second = new_ca(DAILY, NOW + 2 * HOUR, NOW + 2 * HOUR)
    assert activated(CaSet(cas.current, second, cas.retired), NOW + DAY).retired == cas.retired
    assert activated(CaSet(cas.current, second, cas.retired), NOW + DAY + 1).retired == ()
    with pytest.raises(ValueError, match="no CA is prepared"):
        activated(cas, NOW)


def test_a_ca_ends_with_the_first_of_what_is_above_it() -> None:
    above = pki.make_ca("middle", start=NOW - DAY, end=NOW + 5 * HOUR)
    one = new_ca(DAILY, NOW, NOW)
    assert replace(one, intermediates=(above.certificate,)).not_after == NOW + 5 * HOUR
    root_ends_first = replace(one, intermediates=(above.certificate,), limit=NOW + HOUR)
    assert (root_ends_first.not_after, root_ends_first.prepare_next_at) == (NOW + HOUR, NOW + HOUR / 2)
    assert root_ends_first.signer.limit == NOW + HOUR


def test_certificates_without_a_key_identifier_have_the_customary_one() -> None:
    one = new_ca(DAILY, NOW, NOW)
    bare = pki.answer(pki.request().csr, pki.make_ca("issuer"))
    without = pki.sign(pki.name("bare"), one.key.public_key(), None, one.key, extensions=())
    assert subject_key_id(without) == one.ca_id != subject_key_id(bare)


def next_event(cas: CaSet) -> float:
    """When something is to be done next, in a set of CAs with which nothing is to be done now."""
    assert cas.current is not None
    return min(cas.current.not_after, cas.current.prepare_next_at if cas.next is None else cas.next.activate_at)


happenings = st.lists(
    st.tuples(
        st.sampled_from(["wait", "next event", "jump", "key type", "ttl", "trust domain", "upstream"]),
        st.floats(0, 40 * DAY),
        st.sampled_from(["ec-p256", "ec-p384"]),
    ),
    max_size=20,
)


@given(happenings)
@settings(max_examples=80)
def test_whatever_happens_there_is_a_usable_ca_and_an_event_ahead(events: list[tuple[str, float, KeyType]]) -> None:
    wanted, cas, now = DAILY, started(), float(NOW)
    for what, amount, key_type in events:
        match what:
            case "wait":
                now += amount / 20
            case "next event":
                now = max(now, next_event(cas))
            case "jump":
                now += amount - 20 * DAY
            case "key type":
                wanted = replace(wanted, key_type=key_type)
            case "ttl":
                wanted = replace(wanted, ttl=10 + int(amount))
            case "trust domain":
                wanted = replace(wanted, trust_domain=f"{key_type}.test")
            case "upstream":
                wanted = replace(wanted, upstream=f"company-{key_type}")
        before, cas = cas, advanced(cas, wanted, now)
        assert usable(cas.current, wanted, now)
        assert next_event(cas) > now
        if cas.current is not before.current and usable(before.current, wanted, now):
            # Nothing signs before its time while another can.
            assert cas.current is before.next
            assert before.next is not None
            assert before.next.activate_at <= now


@given(st.lists(st.floats(0.5, 11 * HOUR), min_size=1, max_size=30))
@settings(max_examples=50)
def test_attended_in_time_no_ca_signs_before_it_was_known_for_a_while(pauses: list[float]) -> None:
    cas, now, known = started(), float(NOW), dict[str, float]()
    for pause in pauses:
        now += pause
        cas = advanced(cas, DAILY, now)
        assert cas.current is not None
        for ca in (cas.current, cas.next):
            if ca is not None:
                known.setdefault(ca.ca_id, int(now))
        if cas.current.created_at != NOW:
            assert now - known[cas.current.ca_id] >= 15 * 60


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
    with pytest.raises(ValueError, match=reason):
        replace(DAILY, **change)  # type: ignore[arg-type]


def test_keys_are_not_shown() -> None:
    cas = started()
    assert "key=" not in repr(cas)
    assert "PRIVATE" not in repr(cas)


def test_activation_does_not_wait_where_nothing_can_sign() -> None:
    assert activation(CaSet(), DAILY, NOW) == NOW
    assert activation(started(), DAILY, NOW + 2 * DAY) == NOW + 2 * DAY
