"""The interface of node attestors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Attested:
    """What evidence proved: who the agent is, and whether it may register the workloads of its machine itself."""

    agent_id: str
    registrar: bool = False


class NodeAttestor(Protocol):
    """Judges evidence of one kind."""

    async def attest(self, payload: str) -> Attested:
        """Raises RefusedError with a reason that can be told to anybody, UnavailableError when it cannot judge now."""
