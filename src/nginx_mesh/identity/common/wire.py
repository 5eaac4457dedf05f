"""What agents and identity servers send each other: JSON over HTTP/1.1 with mutual TLS.

| request | who may | body → answer |
|---|---|---|
| POST `/v1/attest` | anybody with evidence | `Evidence` → `AgentSvid` |
| POST `/v1/renew` | agent | `Csr` → `AgentSvid` |
| GET `/v1/watch` | agent | → lines of `Announced`, and empty ones so that silence means a lost connection |
| PUT, POST `/v1/entries` | registrar | `Registrations` → {}: these exactly, or these as well |
| POST `/v1/entries/delete` | registrar | `EntryIds` → {} |
| GET `/v1/entries?cursor=N` | agent | → `Entries` |
| POST `/v1/svids` | agent | `SvidRequests` → `SvidAnswers` |
| POST `/v1/jwt` | agent | `JwtRequest` → `Jwt` |

Errors are `{"error": reason}`: 400 malformed, 401 without the SVID of an agent, 403 refused, 503 unavailable now.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from . import bundle as bundles
from .client import Announcement, Registration, SvidAnswer, SvidRequest
from .entry import RegistrationEntry

T = TypeVar("T")

MAX_BODY = 8 << 20
MAX_EVIDENCE = 64 << 10
HEARTBEAT_SECONDS = 5.0


class MalformedError(Exception):
    """A message that is malformed. The text names the field."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all messages. Bytes are base64 in JSON."""


class Evidence(Message, frozen=True):
    """Evidence of where an agent runs: the kind of attestation, its payload, and a CSR (DER) for the agent's SVID."""

    attestation: str
    payload: str
    csr: bytes

    def __repr__(self) -> str:
        return f"Evidence(attestation={self.attestation!r}, payload=<redacted>)"


class Csr(Message, frozen=True):
    """A CSR (DER) for the next SVID of an agent."""

    csr: bytes


class AgentSvid(Message, frozen=True):
    """An agent's chain (DER, leaf first), and whether it may register workloads."""

    chain: list[bytes]
    registrar: bool


class Registrations(Message, frozen=True):
    """Workloads to register."""

    registrations: list[Registration]


class EntryIds(Message, frozen=True):
    """The entry IDs of workloads to forget."""

    entry_ids: list[str]


class Entries(Message, frozen=True):
    """The entries of an agent that changed, the IDs of all entries that changed, and the cursor to go on from.

    Unless it is `complete`, `entries` are all of the agent's, and it has no others.
    """

    cursor: int
    complete: bool
    touched: list[str]
    entries: list[RegistrationEntry]


class SvidRequests(Message, frozen=True):
    """Requests for X.509-SVIDs."""

    requests: list[SvidRequest]


class SvidAnswers(Message, frozen=True):
    """Answers to SvidRequests, in their order."""

    answers: list[SvidAnswer]


class JwtRequest(Message, frozen=True):
    """A request for a JWT-SVID of a workload."""

    entry_id: str
    audience: list[str]


class Jwt(Message, frozen=True):
    """A JWT-SVID; `expires_at` is Unix seconds."""

    spiffe_id: str
    token: str
    expires_at: int

    def __repr__(self) -> str:
        return f"Jwt(spiffe_id={self.spiffe_id!r}, token=<redacted>, expires_at={self.expires_at})"


class Announced(Message, frozen=True):
    """An Announcement. `bundles` are SPIFFE bundle documents by trust domain."""

    trust_domain: str
    bundles: dict[str, bytes]
    svid_ttl: int
    retired: list[str]


class Failed(msgspec.Struct, frozen=True):
    """The answer to a request that failed: the reason."""

    error: str


def decode(type_: type[T], body: bytes) -> T:
    """The message in a body. Raises MalformedError."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"malformed: {error}") from None


def encode(message: Any) -> bytes:
    """A message as one line of JSON."""
    return msgspec.json.encode(message)


def announced(announcement: Announcement) -> Announced:
    """The message for an announcement."""
    documents = {name: bundles.encode(bundle, expiries=True) for name, bundle in announcement.bundles.items()}
    return Announced(announcement.trust_domain, documents, announcement.svid_ttl, sorted(announcement.retired))


def announcement(message: Announced) -> Announcement:
    """The announcement in a message. Raises MalformedError."""
    try:
        decoded = {name: bundles.decode(name, document) for name, document in message.bundles.items()}
    except bundles.BundleError as error:
        raise MalformedError(str(error)) from None
    return Announcement(message.trust_domain, decoded, message.svid_ttl, frozenset(message.retired))
