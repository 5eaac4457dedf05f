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

    `serial` is the decimal serial number of its newest SVID. Until the agent uses that SVID, the serial number of the
    one before and a space come first. `not_after` is Unix seconds.
    """

    spiffe_id: str
    attestation: str
    serial: str
    not_after: int
    registrar: bool = False
    banned: bool = False


@dataclass(frozen=True)
class JoinToken:
    """A secret that admits one agent, once. `digest` is its SHA-256 in hexadecimal; the secret itself is not kept."""

    digest: str
    agent_id: str
    expires_at: int
    registrar: bool = False


@dataclass(frozen=True)
class FederationRelationship:
    """Where another trust domain publishes its bundle. Only the profile https_spiffe has an `endpoint_spiffe_id`."""

    trust_domain: str
    endpoint_url: str
    profile: Literal["https_spiffe", "https_web"]
    endpoint_spiffe_id: str = ""


@dataclass(frozen=True)
class Changes:
    """The entry IDs and the trust domains of bundles that changed after a cursor, each once, and the next cursor.

    Unless it is `complete`, the cursor was too old or from another datastore: everything has to be read again.
    """

    cursor: int
    entries: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    complete: bool = True


class Datastore(Protocol):
    """Keeps what a server must not forget. Thread-safe. `str()` names the datastore, for messages.

    Every method raises DatastoreError when the datastore cannot be used. Several servers may share one: by `changes`
    they find what another committed.
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
        """What changed since `cursor`; 0 is before everything. Changes that are older than a day may be forgotten."""

    def nodes(self) -> list[AttestedNode]:
        """All attested nodes."""

    def node(self, spiffe_id: str) -> AttestedNode | None:
        """One attested node."""

    def put_node(self, node: AttestedNode) -> None:
        """Create or replace a node. A node that is banned remains so."""

    def renew_node(self, spiffe_id: str, serial: str, not_after: int) -> bool:
        """Record the new SVID of a node. Returns False, and changes nothing, for a node that is unknown or banned."""

    def ban_node(self, spiffe_id: str, banned: bool) -> bool:
        """Ban a node, or end its ban. Returns whether the node exists."""

    def delete_node(self, spiffe_id: str) -> None:
        """Remove a node and the entries below it."""

    def put_join_token(self, token: JoinToken) -> None:
        """Remember a token, and forget all that have expired."""

    def take_join_token(self, digest: str, now: int) -> JoinToken | None:
        """Consume a token. Of several servers that ask, one gets it. None when it is unknown, used or expired."""

    def bundle(self, trust_domain: str) -> bytes | None:
        """A bundle's document (SPIFFE bundle format), None when unknown."""

    def bundles(self) -> dict[str, bytes]:
        """Every bundle's document by trust domain."""

    def put_bundle(self, trust_domain: str, document: bytes, expected: bytes | None) -> bool:
        """Replace a bundle if it still is `expected` (None for absent). Returns whether it was."""

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
