"""What the SPIFFE Workload API gives to workloads: SVIDs, and the bundles to verify others by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509

from nginx_mesh.api.spiffe import SpiffeId

from .bundle import TrustBundle
from .keys import PrivateKey


@dataclass(frozen=True)
class X509Svid:
    """An X.509-SVID and its private key. `chain` is leaf first, without roots."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)


@dataclass(frozen=True)
class JwtSvid:
    """A JWT-SVID. `token` is the compact serialisation, a bearer secret."""

    spiffe_id: SpiffeId
    token: str = field(repr=False)
    expires_at: int


@dataclass(frozen=True)
class WorkloadContext:
    """All that a workload holds at one time. `bundles` are by trust domain: its own, and those it federates with."""

    svids: tuple[X509Svid, ...]
    bundles: Mapping[str, TrustBundle]


class JwtRefusedError(Exception):
    """The workload gets no JWT-SVID. The message says why; if `unavailable`, asking again later may help."""

    def __init__(self, message: str, *, unavailable: bool = False) -> None:
        super().__init__(message)
        self.unavailable = unavailable


class WorkloadSource(Protocol):
    """What the callers of a socket are entitled to: one pod's identity, or on a node's socket those of all pods."""

    def updates(self) -> AsyncIterator[WorkloadContext | None]:
        """The context as it is now, then again after every change. None while there is no identity."""

    async def jwt_svids(self, audience: Sequence[str], spiffe_id: SpiffeId | None) -> list[JwtSvid]:
        """A JWT-SVID for each identity of the workload, or for `spiffe_id` alone. Raises JwtRefusedError."""
