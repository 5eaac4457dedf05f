"""The interface that an agent calls an identity server by, whatever process the server is in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .bundle import TrustBundle
from .workload import JwtSvid


class UnavailableError(Exception):
    """The server cannot be reached or cannot answer now. The message says why; asking again later may help."""


class RefusedError(Exception):
    """The server refuses what it was asked, now and later. The message says why."""


@dataclass(frozen=True)
class Registration:
    """A workload on the agent's own machine that shall have an identity. `entry_id` is the agent's name for it."""

    entry_id: str
    spiffe_id: str
    dns_names: tuple[str, ...] = ()
    selectors: tuple[str, ...] = ()


@dataclass(frozen=True)
class SvidRequest:
    """A request for an X.509-SVID. `csr` (DER) proves who holds the key; the identity is the registered one."""

    entry_id: str
    csr: bytes


@dataclass(frozen=True)
class SvidAnswer:
    """The answer to an SvidRequest: a chain (DER, leaf first, without root), or in `refused` why there is none."""

    entry_id: str
    chain: tuple[bytes, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Announcement:
    """What a server tells all of its agents.

    `bundles` are by trust domain, the server's own among them. `svid_ttl` is seconds. `retired` has the key identifiers
    (hexadecimal) of CAs whose SVIDs are to be replaced before they expire.
    """

    trust_domain: str
    bundles: Mapping[str, TrustBundle]
    svid_ttl: int
    retired: frozenset[str] = frozenset()


class AuthorityClient(Protocol):
    """The calls of one agent to its server. All methods raise UnavailableError and RefusedError."""

    def watch(self) -> AsyncGenerator[Announcement, None]:
        """The announcement as it is now, then again after every change. Ends by raising UnavailableError."""

    async def sync(self, registrations: Sequence[Registration]) -> None:
        """Register exactly these workloads, and forget all others of this agent."""

    async def register(self, registrations: Sequence[Registration]) -> None:
        """Register workloads, or change those that are registered."""

    async def unregister(self, entry_ids: Sequence[str]) -> None:
        """Forget workloads. Unknown ones are ignored."""

    async def sign(self, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        """X.509-SVIDs for workloads of this agent. The answers are in the order of the requests."""

    async def sign_jwt(self, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """A JWT-SVID for a workload of this agent."""
