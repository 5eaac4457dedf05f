import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_mesh.identity import journal
from nginx_mesh.identity.ca import AuthoritySet, CaSettings, CertificateAuthority
from nginx_mesh.identity.keys import KEY_TYPES, KeyType, generate_key, to_pem

NOW = 1_800_000_000
HOUR = 3600


def rotated(key_type: KeyType = "ec-p256") -> CertificateAuthority:
    """A CA with a current, a next and an old one."""
    ca = CertificateAuthority(CaSettings("example.org", key_type, 24 * HOUR))
    for hour in (0, 12, 20, 24):
        ca.advance(NOW + hour * HOUR)
    assert ca.authorities.current and ca.authorities.next and ca.authorities.old
    return ca


GOOD = journal.encode(rotated().authorities)
KEYS = [entry["key"] for entry in json.loads(GOOD)["authorities"] if entry["key"]]
KEY_PIECES = [key[start : start + 6] for key in KEYS for start in range(30, len(key) - 30)]


def facts(authorities: AuthoritySet) -> list[object]:
    found: list[object] = []
    for one in (authorities.current, authorities.next, *authorities.old):
        assert one is not None
        found.append((one.certificate, None if one.key is None else to_pem(one.key), one.created_at, one.activate_at))
    return found


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_cas_come_back_as_they_were_kept(key_type: KeyType) -> None:
    ca = rotated(key_type)
    back = journal.decode(journal.encode(ca.authorities))
    assert facts(back) == facts(ca.authorities)
    again = CertificateAuthority(ca.settings, back)
    assert not again.advance(NOW + 24 * HOUR)
    assert again.next_event(NOW + 24 * HOUR) == ca.next_event(NOW + 24 * HOUR)


def test_an_empty_set_comes_back_empty() -> None:
    assert journal.decode(journal.encode(AuthoritySet())) == AuthoritySet()


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_an_altered_byte_is_refused_or_harmless_and_never_leaks_the_key(position: int, flip: int) -> None:
    damaged = GOOD[:position] + bytes([GOOD[position] ^ flip]) + GOOD[position + 1 :]
    try:
        back = journal.decode(damaged)
    except journal.JournalError as error:
        assert not any(piece in str(error) for piece in KEY_PIECES)
        return
    good = journal.decode(GOOD)
    certificates = {one.certificate for one in (good.current, good.next, *good.old) if one}
    assert {one.certificate for one in (back.current, back.next, *back.old) if one} <= certificates


@given(st.binary(max_size=200) | st.integers(0, len(GOOD) - 1).map(lambda end: GOOD[:end]))
def test_garbage_and_cut_journals_are_refused(damaged: bytes) -> None:
    with pytest.raises(journal.JournalError):
        journal.decode(damaged)


def changed(index: int, **fields: object) -> bytes:
    document = json.loads(GOOD)
    document["authorities"][index].update(fields)
    return json.dumps(document).encode()


def test_what_is_wrong_with_a_journal_is_named() -> None:
    other = json.loads(journal.encode(rotated().authorities))["authorities"][0]
    for damaged, reason in (
        (changed(0, key=other["key"]), r"authorities\[0\]: the key is not that of the certificate"),
        (changed(1, key=None), r"authorities\[1\]: the next CA has no key"),
        (changed(1, state="current"), "more than one CA is current"),
        (changed(1, state="retired"), "Invalid enum value"),
        (changed(2, certificate="nonsense"), r"authorities\[2\]: "),
        (changed(0, key="nonsense"), r"authorities\[0\]: not a private key"),
        (changed(0, surprise=1), "unknown field"),
        (GOOD.replace(b'"format":1', b'"format":2'), "format"),
    ):
        with pytest.raises(journal.JournalError, match=reason):
            journal.decode(damaged)


def test_a_key_with_a_damaged_first_line_is_not_quoted() -> None:
    with pytest.raises(journal.JournalError) as failure:
        journal.decode(changed(0, key=KEYS[0].replace("KEY-----\n", "KEY----\n", 1)))
    assert str(failure.value) == "authorities[0]: not a private key in unencrypted PEM"


def test_a_key_of_another_type_than_the_certificates_is_refused() -> None:
    with pytest.raises(journal.JournalError, match=r"authorities\[0\]"):
        journal.decode(changed(0, key=to_pem(generate_key("rsa-2048"))))
