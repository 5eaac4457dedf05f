"""The interface of identity providers, which give the workloads of a machine their identities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.identity.common.workload import WorkloadSource
from nginx_mesh.protocol.state import Identity

OnUpdate = Callable[[str, Identity | None], None]
"""Hears of a workload's new identity, None when it was taken away."""


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

    def svid_status(self, workload: str) -> SvidStatus | None:
        """How a workload stands with its SVID; None when it is not registered."""

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
