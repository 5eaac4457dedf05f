"""The pods of a node that have an identity, from when they may run to their end."""

from __future__ import annotations

import asyncio

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.identity.agent.provider import IdentityProvider
from nginx_mesh.protocol.state import Identity

from .sidecars import NodeSidecars


class Workloads:
    """Hands the identities of pods, as the provider issues and renews them, to the sidecars of the pods."""

    def __init__(self, provider: IdentityProvider, sidecars: NodeSidecars) -> None:
        self._provider = provider
        self._sidecars = sidecars
        self._pods: dict[str, ObjectKey] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to issue and renew identities."""
        self._task = asyncio.create_task(self._provider.run(self._issued), name="issue identities")

    async def close(self) -> None:
        """Stop; what was issued stays good until it expires."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def serve(self, pod: ObjectKey, uid: str, *, had_state: bool) -> None:
        """The pod has a sidecar: give it its state and its identity. `had_state` is as of NodeSidecars.serve."""
        self._pods[uid] = pod
        self._sidecars.serve(pod, uid, had_state=had_state)

    async def drop(self, pod: ObjectKey, uid: str) -> None:
        """The pod with this uid is gone, and so is its identity."""
        self._pods.pop(uid, None)
        await self._sidecars.drop(pod, uid)
        self._provider.unregister(uid)

    def pod(self, uid: str) -> ObjectKey | None:
        """The pod of a uid, None when it has no sidecar."""
        return self._pods.get(uid)

    def _issued(self, uid: str, identity: Identity | None) -> None:
        pod = self._pods.get(uid)
        if pod is not None:
            self._sidecars.set_identity(pod, identity)
