import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.identity.common.keys import KEY_TYPES, KeyType, PrivateKey, to_pem
from nginx_mesh.identity.server import carecords
from nginx_mesh.identity.server.ca import Ca, CaSet, CaSettings, Retired
from tests.unit.identity.authorities import HOUR, NOW, advanced, new_ca

from .upstream import pki

DAILY = CaSettings("example.org", "ec-p256", 24 * HOUR)


def rotated(key_type: KeyType = "ec-p256") -> CaSet:
    """A CA that signs, one that is prepared, one that is retired."""
    wanted = replace(DAILY, key_type=key_type)
    cas = advanced(advanced(CaSet(), wanted, NOW), wanted, NOW + 12 * HOUR)
    return CaSet(cas.current, cas.next, (Retired("ab" * 20, NOW + HOUR),))


def keys_of(cas: CaSet) -> dict[str, PrivateKey]:
    found: dict[str, PrivateKey] = {}
    for ca in (cas.current, cas.next):
        if ca is not None:
            found |= zip(carecords.key_names(ca), (ca.key, ca.jwt_key), strict=True)
    return found


CAS = rotated()
KEYS = keys_of(CAS)
GOOD = carecords.encode(CAS)


def resealed(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def facts(ca: Ca | None) -> list[object]:
    assert ca is not None
    keys = (to_pem(ca.key), to_pem(ca.jwt_key))
    times = (ca.created_at, ca.activate_at, ca.not_after, ca.prepare_next_at)
    return [ca.certificate, ca.intermediates, ca.chain, keys, times, ca.settings, ca.retires_previous]


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_cas_come_back_as_they_were_kept(key_type: KeyType) -> None:
    cas = rotated(key_type)
    back = carecords.decode(carecords.encode(cas), keys_of(cas).get)
    assert facts(back.current) == facts(cas.current)
    assert facts(back.next) == facts(cas.next)
    assert back.retired == cas.retired


def test_a_ca_below_others_comes_back_with_its_chain_and_its_end() -> None:
    below = CaSettings("example.org", "ec-p256", 24 * HOUR, "company-1")
    middle = pki.make_ca("middle", end=NOW + 99 * HOUR).certificate
    ca = replace(new_ca(below, NOW, NOW), intermediates=(middle,), limit=NOW + 5 * HOUR, retires_previous=True)
    back = carecords.decode(carecords.encode(CaSet(ca)), keys_of(CaSet(ca)).get).current
    assert facts(back) == facts(ca)


def test_an_empty_set_comes_back_empty() -> None:
    assert carecords.decode(carecords.encode(CaSet()), KEYS.get) == CaSet()


def test_ca_records_hold_no_keys() -> None:
    assert b"PRIVATE" not in GOOD
    for key in KEYS.values():
        secret = key.private_numbers()
        assert not any(part in GOOD.decode() for part in to_pem(key).splitlines()[1:-1])
        assert str(getattr(secret, "private_value", None)) not in GOOD.decode()


def test_a_ca_whose_keys_are_gone_is_left_out() -> None:
    names = list(KEYS)
    for missing in names[:2]:
        back = carecords.decode(GOOD, {name: key for name, key in KEYS.items() if name != missing}.get)
        assert back.current is None
        assert facts(back.next) == facts(CAS.next)
    gone = carecords.decode(GOOD, lambda _: None)
    assert (gone.current, gone.next, gone.retired) == (None, None, CAS.retired)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_an_altered_byte_is_noticed(position: int, flip: int) -> None:
    damaged = GOOD[:position] + bytes([GOOD[position] ^ flip]) + GOOD[position + 1 :]
    with pytest.raises(carecords.CaRecordsError, match="damaged"):
        carecords.decode(damaged, KEYS.get)


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(resealed)
    | st.integers(0, len(GOOD) - 1).map(lambda end: GOOD[:end])
)
def test_garbage_and_cut_ca_records_are_refused(damaged: bytes) -> None:
    with pytest.raises(carecords.CaRecordsError):
        carecords.decode(damaged, KEYS.get)


def changed(index: int, **fields: object) -> bytes:
    document = json.loads(GOOD.splitlines()[1])
    document["authorities"][index].update(fields)
    return resealed(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (changed(0, key=list(KEYS)[2]), r"authorities\[0\]: the key x509-.* is not that of the certificate"),
        (changed(1, state="current"), "more than one CA is current"),
        (changed(1, state="old"), "Invalid enum value"),
        (changed(1, chain="nonsense"), r"authorities\[1\]: "),
        (changed(1, chain=""), r"authorities\[1\]: "),
        (changed(1, ttl=1), r"authorities\[1\]: CA TTL of 1 s"),
        (changed(0, surprise=1), "unknown field"),
        (resealed(GOOD.splitlines()[1].replace(b'"format":1', b'"format":2')), "format"),
        (GOOD[:-1], "damaged"),
    ],
)
def test_what_is_wrong_with_ca_records_is_named(damaged: bytes, reason: str) -> None:
    with pytest.raises(carecords.CaRecordsError, match=reason):
        carecords.decode(damaged, KEYS.get)


def test_names_of_keys_fit_every_key_manager_whatever_identifiers_strangers_give() -> None:
    ca = new_ca(DAILY, NOW, NOW)
    assert all(len(name) <= 64 for name in carecords.key_names(ca))
    assert carecords.key_names(ca)[0].removeprefix("x509-") != ca.ca_id
