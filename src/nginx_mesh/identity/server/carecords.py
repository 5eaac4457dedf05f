"""The CAs as bytes, for a datastore to keep: certificates and where each stands in the rotation. Keys stay elsewhere.

A journal is JSON after its SHA-256, so that a damaged one is told from a good one.
The keys are in a key manager under the names given here; a CA whose keys are gone (the `memory` key manager, after a
restart) cannot sign any more and is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Literal

import msgspec
from cryptography import x509

from nginx_mesh.identity.common.keys import KeyType, PrivateKey, key_id_of
from nginx_mesh.identity.common.x509svid import certificates_pem, spiffe_id_of

from .ca import Ca, CaSet, CaSettings, Retired

FORMAT: Final = 1
_CHECKSUM_BYTES: Final = 65


class JournalError(ValueError):
    """A journal that does not hold what it must. The message names the entry and the reason."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One CA. `chain` is PEM, the CA first. Times are Unix seconds, `ttl` seconds."""

    state: Literal["current", "next"]
    chain: str
    key: str
    jwt_key: str
    key_type: KeyType
    ttl: int
    upstream: str
    created_at: int
    activate_at: float
    not_after: float
    retires_previous: bool


class _Retired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ca_id: str
    until: float


class _Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    authorities: list[_Entry]
    retired: list[_Retired]


def key_names(ca: Ca) -> tuple[str, str]:
    """The names that a CA's key and JWT key have in a key manager."""
    return f"x509-{key_id_of(ca.key)}", f"jwt-{key_id_of(ca.jwt_key)}"


def encode(cas: CaSet) -> bytes:
    """The journal of `cas`. It contains no keys."""
    slots = (("current", cas.current), ("next", cas.next))
    entries = [_entry(state, ca) for state, ca in slots if ca is not None]
    retired = [_Retired(each.ca_id, each.until) for each in cas.retired]
    content = msgspec.json.encode(_Journal(FORMAT, entries, retired))
    return _checksum(content) + content


def decode(journal: bytes, load: Callable[[str], PrivateKey | None]) -> CaSet:
    """The CAs of a journal that `encode` made, as far as `load` has their keys. Raises JournalError."""
    content = journal[_CHECKSUM_BYTES:]
    if journal[:_CHECKSUM_BYTES] != _checksum(content):
        raise JournalError("damaged (its checksum does not match); restore it from a backup or remove it")
    try:
        decoded = msgspec.json.decode(content, type=_Journal)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(str(error)) from None
    entries, found = decoded.authorities, dict[str, Ca]()
    for number, entry in enumerate(entries):
        if [other.state for other in entries].count(entry.state) > 1:
            raise JournalError(f"more than one CA is {entry.state}")
        try:
            ca = _ca(entry, load)
        except ValueError as error:
            raise JournalError(f"authorities[{number}]: {error}") from None
        if ca is not None:
            found[entry.state] = ca
    retired = tuple(Retired(each.ca_id, each.until) for each in decoded.retired)
    return CaSet(found.get("current"), found.get("next"), retired)


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def _entry(state: str, ca: Ca) -> _Entry:
    key, jwt_key = key_names(ca)
    return _Entry(
        "current" if state == "current" else "next",
        certificates_pem((ca.certificate, *ca.intermediates)),
        key,
        jwt_key,
        ca.settings.key_type,
        ca.settings.ttl,
        ca.settings.upstream,
        ca.created_at,
        ca.activate_at,
        ca.not_after,
        ca.retires_previous,
    )


def _ca(entry: _Entry, load: Callable[[str], PrivateKey | None]) -> Ca | None:
    certificate, *intermediates = x509.load_pem_x509_certificates(entry.chain.encode())
    key, jwt_key = load(entry.key), load(entry.jwt_key)
    if key is None or jwt_key is None:
        return None
    if key.public_key() != certificate.public_key():
        raise ValueError(f"the key {entry.key} is not that of the certificate")
    settings = CaSettings(spiffe_id_of(certificate).trust_domain, entry.key_type, entry.ttl, entry.upstream)
    return Ca(
        certificate,
        tuple(intermediates),
        key,
        jwt_key,
        settings,
        entry.created_at,
        entry.activate_at,
        entry.not_after,
        entry.retires_previous,
    )
