"""What the sockets of the Workload API take from an identity provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.workload import JwtSvid, WorkloadContext


class ContextProvider(Protocol):
    """A provider that tells what a workload holds. A workload of None means all workloads of the machine."""

    def changes(self, workload: str | None, /) -> AsyncGenerator[object, None]:
        """Yields at once, then after each change of what the workload holds."""

    def context(self, workload: str | None) -> WorkloadContext | None:
        """All that the workload holds, one SVID for each identity; None while it has no identity."""

    async def jwt_svids(
        self, workload: str | None, audience: Sequence[str], spiffe_id: SpiffeId | None
    ) -> list[JwtSvid]:
        """JWT-SVIDs, one for each identity of the workload, or for `spiffe_id` alone. Raises JwtRefusedError."""


class ProviderSource:
    """A WorkloadSource: one workload of a provider, or with `workload` None all of them."""

    def __init__(self, provider: ContextProvider, workload: str | None) -> None:
        self._provider = provider
        self._workload = workload

    async def updates(self) -> AsyncIterator[WorkloadContext | None]:
        """See WorkloadSource."""
        async with aclosing(self._provider.changes(self._workload)) as changes:
            async for _ in changes:
                yield self._provider.context(self._workload)

    async def jwt_svids(self, audience: Sequence[str], spiffe_id: SpiffeId | None) -> list[JwtSvid]:
        """See WorkloadSource."""
        return await self._provider.jwt_svids(self._workload, audience, spiffe_id)
