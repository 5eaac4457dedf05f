"""The interface of identity providers, which give the workloads of a machine their identities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.workload import WorkloadSource
from nginx_mesh.protocol.state import Identity

OnUpdate = Callable[[str, Identity | None], None]
"""Hears of a workload's new identity, None when it was taken away."""


@dataclass(frozen=True)
class Holding:
    """What a workload holds: its names, and its SVID if it has one.

    `serial` and `issuer` (a key identifier) are hexadecimal, times are Unix seconds; `renew_at` is 0 where the provider
    does not tell. `bundle` has the key identifiers of the roots. `problem` is why the SVID that is due was refused, as
    far as that is known.
    """

    spiffe_id: str
    dns_names: tuple[str, ...]
    serial: str = ""
    issuer: str = ""
    not_before: float = 0.0
    not_after: float = 0.0
    renew_at: float = 0.0
    bundle: tuple[str, ...] = ()
    problem: str = ""


class IdentityProvider(Protocol):
    """Keeps the identity of every registered workload valid. One event loop owns it."""

    def register(self, workload: str, spiffe_id: SpiffeId, dns_names: Sequence[str] = ()) -> None:
        """Have a workload (a pod's uid) get this identity. With other names than before, it gets a new SVID.

        Raises SvidError for names that no certificate may carry, and then changes nothing.
        """

    def unregister(self, workload: str) -> None:
        """Forget a workload. Unknown ones are passed over."""

    def identity(self, workload: str) -> Identity | None:
        """The workload's present identity, None while it has none."""

    def holding(self, workload: str) -> Holding | None:
        """What a workload holds, for people to see; None when it is not registered."""

    @property
    def problem(self) -> str:
        """What keeps identities from being issued or renewed, "" if nothing is known to."""

    def source(self, workload: str) -> WorkloadSource:
        """What the workload's own Workload API socket gives, also before it is registered."""

    def node_source(self) -> WorkloadSource:
        """What the machine's Workload API socket gives: the identities of all its workloads."""

    async def run(self, on_update: OnUpdate) -> None:
        """Issue and renew until cancelled, and report each identity that changed or was taken away.

        A changed bundle is reported for every workload before any SVID is replaced because of it.
        """
