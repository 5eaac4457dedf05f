"""The records of a server's CAs, as the datastore keeps them: the certificates, and where each CA is in the rotation.

The records are JSON after the SHA-256 of that JSON, so that damage is noticed. They contain no keys. These are in a key
manager, under the names that `key_names` gives. A CA whose keys are gone (as with the `memory` key manager after a
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

_FORMAT: Final = 1
_CHECKSUM_BYTES: Final = 65


class CaRecordsError(ValueError):
    """CA records that are damaged or malformed. The message names the record and the reason."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class _Records(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    authorities: list[_Record]
    retired: list[_Retired]


def key_names(ca: Ca) -> tuple[str, str]:
    """The names that a CA's key and JWT key have in a key manager."""
    return f"x509-{key_id_of(ca.key)}", f"jwt-{key_id_of(ca.jwt_key)}"


def encode(cas: CaSet) -> bytes:
    """The records of `cas`, without keys."""
    slots = (("current", cas.current), ("next", cas.next))
    authorities = [_record(state, ca) for state, ca in slots if ca is not None]
    retired = [_Retired(each.ca_id, each.until) for each in cas.retired]
    content = msgspec.json.encode(_Records(_FORMAT, authorities, retired))
    return _checksum(content) + content


def decode(records: bytes, load: Callable[[str], PrivateKey | None]) -> CaSet:
    """The CAs of records that `encode` made, those whose keys `load` finds by their names. Raises CaRecordsError."""
    content = records[_CHECKSUM_BYTES:]
    if records[:_CHECKSUM_BYTES] != _checksum(content):
        raise CaRecordsError("damaged (its checksum does not match); restore it from a backup or remove it")
    try:
        decoded = msgspec.json.decode(content, type=_Records)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CaRecordsError(str(error)) from None
    found: dict[str, Ca] = {}
    for number, record in enumerate(decoded.authorities):
        if [other.state for other in decoded.authorities].count(record.state) > 1:
            raise CaRecordsError(f"more than one CA is {record.state}")
        try:
            ca = _ca(record, load)
        except ValueError as error:
            raise CaRecordsError(f"authorities[{number}]: {error}") from None
        if ca is not None:
            found[record.state] = ca
    retired = tuple(Retired(each.ca_id, each.until) for each in decoded.retired)
    return CaSet(found.get("current"), found.get("next"), retired)


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def _record(state: str, ca: Ca) -> _Record:
    key, jwt_key = key_names(ca)
    return _Record(
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


def _ca(record: _Record, load: Callable[[str], PrivateKey | None]) -> Ca | None:
    certificate, *intermediates = x509.load_pem_x509_certificates(record.chain.encode())
    key, jwt_key = load(record.key), load(record.jwt_key)
    if key is None or jwt_key is None:
        return None
    if key.public_key() != certificate.public_key():
        raise ValueError(f"the key {record.key} is not that of the certificate")
    settings = CaSettings(spiffe_id_of(certificate).trust_domain, record.key_type, record.ttl, record.upstream)
    return Ca(
        certificate,
        tuple(intermediates),
        key,
        jwt_key,
        settings,
        record.created_at,
        record.activate_at,
        record.not_after,
        record.retires_previous,
    )
