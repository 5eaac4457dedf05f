"""Join tokens: secrets that admit one agent, once. They are for machines that no cluster vouches for."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable

from nginx_mesh.identity.common.client import RefusedError
from nginx_mesh.identity.server.datastore.base import Datastore, JoinToken, available

from .base import Attested

MAX_TTL = 7 * 24 * 3600


class JoinTokens:
    """Makes join tokens, and is the NodeAttestor that takes them. Only their digests are kept."""

    def __init__(self, datastore: Datastore, clock: Callable[[], float]) -> None:
        self._datastore = datastore
        self._clock = clock

    def make(self, agent_id: str, ttl: int, *, registrar: bool) -> str:
        """A token for the agent with this SPIFFE ID, valid for `ttl` seconds. Blocks.

        Raises ValueError for a TTL out of bounds, DatastoreError.
        """
        if not 1 <= ttl <= MAX_TTL:
            raise ValueError(f"a life of {ttl} s is not between 1 s and {MAX_TTL} s")
        token = secrets.token_urlsafe(32)
        expires_at = int(self._clock()) + ttl
        self._datastore.put_join_token(JoinToken(_digest(token), agent_id, expires_at, registrar))
        return token

    async def attest(self, payload: str) -> Attested:
        """See NodeAttestor."""
        with available():
            found = await asyncio.to_thread(self._datastore.take_join_token, _digest(payload), int(self._clock()))
        if found is None:
            raise RefusedError("the join token is unknown, used or expired")
        return Attested(found.agent_id, found.registrar)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
