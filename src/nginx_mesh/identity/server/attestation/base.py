"""The interface of node attestors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Attested:
    """What evidence proved: the agent's SPIFFE ID, and whether it may register the workloads of its machine itself."""

    agent_id: str
    registrar: bool = False


class NodeAttestor(Protocol):
    """Judges evidence of one kind."""

    async def attest(self, payload: str) -> Attested:
        """The agent that the evidence is of.

        Raises RefusedError with a reason that anybody may learn, and UnavailableError when it cannot judge now.
        """
