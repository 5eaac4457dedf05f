"""The interface of datastores, and the records in them.

Times are Unix seconds. Records are immutable; each method is one transaction. Methods block: call them in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from nginx_mesh.identity.common.client import UnavailableError
from nginx_mesh.identity.common.entry import RegistrationEntry


class DatastoreError(Exception):
    """The datastore cannot be opened, read or written. The message says which and why, without credentials."""


@contextmanager
def available() -> Iterator[None]:
    """Within, a datastore that fails makes the server unavailable: DatastoreError becomes UnavailableError."""
    try:
        yield
    except DatastoreError as error:
        raise UnavailableError(str(error)) from None


@dataclass(frozen=True)
class AttestedNode:
    """An agent that proved where it runs.

    `serial` is that of its present SVID, decimal; until that one is used, the serial before it and a space precede it.
    """

    spiffe_id: str
    attestation: str
    serial: str
    not_after: int
    registrar: bool = False
    banned: bool = False


@dataclass(frozen=True)
class JoinToken:
    """A secret that admits one agent, once. Only its SHA-256 (hexadecimal) is kept."""

    digest: str
    agent_id: str
    expires_at: int
    registrar: bool = False


@dataclass(frozen=True)
class FederationRelationship:
    """Where another trust domain publishes its bundle. `endpoint_spiffe_id` only with the profile https_spiffe."""

    trust_domain: str
    endpoint_url: str
    profile: Literal["https_spiffe", "https_web"]
    endpoint_spiffe_id: str = ""


@dataclass(frozen=True)
class Changes:
    """What was touched after a cursor, each once: entry IDs and trust domains of bundles, and the cursor to go on from.

    `complete` False: the cursor is too old (or from elsewhere) to tell; read everything anew.
    """

    cursor: int
    entries: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    complete: bool = True


class Datastore(Protocol):
    """Every method raises DatastoreError when the store cannot be used. Thread-safe. `str()` says which, for messages.

    Several servers may share one; what one commits, the others find by `changes`.
    """

    def entries(self, parent_id: str | None = None) -> list[RegistrationEntry]:
        """All entries, or those of one agent."""

    def entries_by_id(self, entry_ids: Sequence[str]) -> list[RegistrationEntry]:
        """Those of these entries that exist."""

    def put_entries(self, entries: Iterable[RegistrationEntry]) -> None:
        """Create or replace entries, all or none. `created_at` of an entry that exists stays."""

    def delete_entries(self, entry_ids: Iterable[str]) -> None:
        """Remove entries; unknown ones are passed over."""

    def changes(self, cursor: int) -> Changes:
        """What was touched since `cursor`; 0 is before everything. What is older than a day may be forgotten."""

    def nodes(self) -> list[AttestedNode]:
        """All attested nodes."""

    def node(self, spiffe_id: str) -> AttestedNode | None:
        """One attested node."""

    def put_node(self, node: AttestedNode) -> None:
        """Create or replace a node. Whether one that exists is banned stays."""

    def renew_node(self, spiffe_id: str, serial: str, not_after: int) -> bool:
        """The SVID that a node has now; False for one that is not there or is banned, and stays so."""

    def ban_node(self, spiffe_id: str, banned: bool) -> bool:
        """Ban or readmit a node; whether it is there."""

    def delete_node(self, spiffe_id: str) -> None:
        """Remove a node and the entries below it."""

    def put_join_token(self, token: JoinToken) -> None:
        """Remember a token; also forgets those that expired before the newest was made."""

    def take_join_token(self, digest: str, now: int) -> JoinToken | None:
        """Consume a token: whoever asks first has it, also of several servers; None: there is none, or it expired."""

    def bundle(self, trust_domain: str) -> bytes | None:
        """A bundle's document (SPIFFE bundle format), None when unknown."""

    def bundles(self) -> dict[str, bytes]:
        """Every bundle's document by trust domain."""

    def put_bundle(self, trust_domain: str, document: bytes, expected: bytes | None) -> bool:
        """Replace a bundle if it still is `expected` (None: absent); whether it was."""

    def relationships(self) -> list[FederationRelationship]:
        """All federation relationships."""

    def put_relationship(self, relationship: FederationRelationship) -> None:
        """Create or replace a relationship."""

    def delete_relationship(self, trust_domain: str) -> None:
        """Remove a relationship and that trust domain's bundle."""

    def ca_records(self, server_id: str) -> bytes | None:
        """The records of one server's CAs, None when there are none. They hold no keys."""

    def put_ca_records(self, server_id: str, records: bytes) -> None:
        """Replace the records of one server's CAs."""

    def close(self) -> None:
        """Let go of files and connections."""
