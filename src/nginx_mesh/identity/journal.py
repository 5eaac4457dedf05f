"""The CAs as bytes, for a key manager to keep: certificates, keys and where each stands in the rotation."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from .ca import Authority, AuthoritySet
from .keys import from_pem, to_pem
from .x509svid import certificate_pem, spiffe_id_of

FORMAT: Final = 1


class JournalError(ValueError):
    """A journal that does not hold what it must. The message names the entry and the reason."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One CA. PEM; `key` is None for old ones. Times are Unix seconds."""

    state: Literal["current", "next", "old"]
    certificate: str
    key: str | None
    created_at: int
    activate_at: float


class _Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    authorities: list[_Entry]


def encode(authorities: AuthoritySet) -> bytes:
    """The journal of `authorities`. It contains private keys."""
    entries = [_entry("old", authority) for authority in authorities.old]
    if authorities.next is not None:
        entries.insert(0, _entry("next", authorities.next))
    if authorities.current is not None:
        entries.insert(0, _entry("current", authorities.current))
    return msgspec.json.encode(_Journal(FORMAT, entries))


def decode(journal: bytes) -> AuthoritySet:
    """The CAs in a journal that `encode` made. Raises JournalError unless every one of them is whole."""
    try:
        entries = msgspec.json.decode(journal, type=_Journal).authorities
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(str(error)) from None
    states = [entry.state for entry in entries]
    for state in ("current", "next"):
        if states.count(state) > 1:
            raise JournalError(f"more than one CA is {state}")
    by_state: dict[str, list[Authority]] = {"current": [], "next": [], "old": []}
    for number, entry in enumerate(entries):
        try:
            by_state[entry.state].append(_authority(entry))
        except ValueError as error:
            raise JournalError(f"authorities[{number}]: {error}") from None
    return AuthoritySet(
        next(iter(by_state["current"]), None), next(iter(by_state["next"]), None), tuple(by_state["old"])
    )


def _entry(state: Literal["current", "next", "old"], authority: Authority) -> _Entry:
    return _Entry(
        state,
        certificate_pem(authority.certificate),
        None if authority.key is None else to_pem(authority.key),
        authority.created_at,
        authority.activate_at,
    )


def _authority(entry: _Entry) -> Authority:
    try:
        certificate = x509.load_pem_x509_certificate(entry.certificate.encode())
        certificate.verify_directly_issued_by(certificate)
    except InvalidSignature:
        raise ValueError("the certificate's own signature is wrong") from None
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
    spiffe_id_of(certificate)
    if entry.state == "old":
        return Authority(certificate, None, entry.created_at, entry.activate_at)
    if entry.key is None:
        raise ValueError(f"the {entry.state} CA has no key")
    key = from_pem(entry.key)
    if key.public_key() != certificate.public_key():
        raise ValueError("the key is not that of the certificate")
    return Authority(certificate, key, entry.created_at, entry.activate_at)
