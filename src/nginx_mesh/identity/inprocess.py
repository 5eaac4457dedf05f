"""An agent and its identity server in one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from .common.client import Announcement, Registration, SvidAnswer, SvidRequest
from .common.workload import JwtSvid
from .server.authority import Authority


class InProcessClient:
    """An AuthorityClient that calls an Authority on the same event loop, as the agent with this SPIFFE ID."""

    def __init__(self, authority: Authority, agent_id: str) -> None:
        self._authority = authority
        self._agent_id = agent_id

    def watch(self) -> AsyncGenerator[Announcement, None]:
        """See AuthorityClient."""
        return self._authority.watch()

    async def sync(self, registrations: Sequence[Registration]) -> None:
        """See AuthorityClient."""
        await self._authority.register(self._agent_id, registrations, exactly=True)

    async def register(self, registrations: Sequence[Registration]) -> None:
        """See AuthorityClient."""
        await self._authority.register(self._agent_id, registrations)

    async def unregister(self, entry_ids: Sequence[str]) -> None:
        """See AuthorityClient."""
        await self._authority.unregister(self._agent_id, entry_ids)

    async def sign(self, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        """See AuthorityClient."""
        return await self._authority.sign(self._agent_id, requests)

    async def sign_jwt(self, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """See AuthorityClient."""
        return await self._authority.sign_jwt(self._agent_id, entry_id, audience)
