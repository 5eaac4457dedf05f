"""What an agent asks of an identity server, in whatever process that is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .bundle import TrustBundle
from .workload import JwtSvid


class UnavailableError(Exception):
    """The server cannot be reached or cannot answer now. Asking again later may help; the message says why."""


class RefusedError(Exception):
    """The server will not do it, now or later. The message says why."""


@dataclass(frozen=True)
class Registration:
    """A workload on the agent's own machine that shall have an identity. `entry_id` is the agent's name for it."""

    entry_id: str
    spiffe_id: str
    dns_names: tuple[str, ...] = ()
    selectors: tuple[str, ...] = ()


@dataclass(frozen=True)
class SvidRequest:
    """A wish for an X.509-SVID. `csr` is DER; it proves the key, the identity is what is registered."""

    entry_id: str
    csr: bytes


@dataclass(frozen=True)
class SvidAnswer:
    """A chain (DER, leaf first, without root), or why there is none."""

    entry_id: str
    chain: tuple[bytes, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Announcement:
    """What concerns all workloads. `bundles` are by trust domain, the server's own among them; TTLs are seconds.

    `retired` are CAs (key identifiers, hexadecimal) whose SVIDs are to be replaced before they expire.
    """

    trust_domain: str
    bundles: Mapping[str, TrustBundle]
    svid_ttl: int
    retired: frozenset[str] = frozenset()


class AuthorityClient(Protocol):
    """An agent's view of its server. All methods raise UnavailableError and RefusedError."""

    def watch(self) -> AsyncGenerator[Announcement, None]:
        """The announcement now, then anew at every change. Ends by raising UnavailableError."""

    async def sync(self, registrations: Sequence[Registration]) -> None:
        """These and no others are the workloads of this agent."""

    async def register(self, registrations: Sequence[Registration]) -> None:
        """Add workloads, or change those that are known."""

    async def unregister(self, entry_ids: Sequence[str]) -> None:
        """Forget workloads; unknown ones are passed over."""

    async def sign(self, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        """Answers in the order of the requests."""

    async def sign_jwt(self, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """A JWT-SVID for a workload of this agent."""
