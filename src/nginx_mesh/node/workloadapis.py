"""The SPIFFE Workload API sockets of a node: one for each pod that mounts it, and the node's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from nginx_mesh.identity.agent.provider import IdentityProvider
from nginx_mesh.identity.agent.workloadapi.server import WorkloadApiServer

SOCKET = "agent.sock"


class WorkloadApis:
    """Opens and closes sockets. What is behind a pod's socket is that pod's identity alone.

    `directory` is where the node's own socket is, `pod_directory` gives that of the pod with a uid.
    """

    def __init__(self, directory: Path, pod_directory: Callable[[str], Path], provider: IdentityProvider) -> None:
        self._directory = directory
        self._pod_directory = pod_directory
        self._provider = provider
        self._servers: dict[str, WorkloadApiServer] = {}

    async def start(self) -> None:
        """Open the node's socket, which only root can. Raises OSError."""
        await self._open("", WorkloadApiServer(self._provider.node_source(), self._directory / SOCKET, mode=0o600))

    async def open(self, uid: str) -> None:
        """Open the socket of the pod with this uid, for every user of its containers. Raises OSError."""
        directory = self._pod_directory(uid)
        directory.mkdir(mode=0o755, exist_ok=True)
        await self._open(uid, WorkloadApiServer(self._provider.source(uid), directory / SOCKET))

    async def close(self, uid: str) -> None:
        """Close a pod's socket, if it has one."""
        server = self._servers.pop(uid, None)
        if server is not None:
            await server.close()

    async def close_all(self) -> None:
        """Close every socket; a successor opens them again in the same places."""
        await asyncio.gather(*(self.close(uid) for uid in tuple(self._servers)))

    async def _open(self, uid: str, server: WorkloadApiServer) -> None:
        await server.start()
        self._servers[uid] = server
