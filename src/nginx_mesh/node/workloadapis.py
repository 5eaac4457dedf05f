"""The SPIFFE Workload API sockets of a local mesh: one for each pod that mounts it, and the node's own."""

from __future__ import annotations

import asyncio

from nginx_mesh.api.core import Pod
from nginx_mesh.identity.agent.provider import IdentityProvider
from nginx_mesh.identity.agent.workloadapi.server import WorkloadApiServer
from nginx_mesh.local.node.volumes import is_workload_api
from nginx_mesh.local.paths import MeshPaths

SOCKET = "agent.sock"


def wants_workload_api(pod: Pod) -> bool:
    """Whether a pod mounts its Workload API."""
    return any(is_workload_api(volume) for volume in pod.spec.volumes)


class WorkloadApis:
    """Opens and closes sockets. What is behind a pod's socket is that pod's identity alone."""

    def __init__(self, paths: MeshPaths, provider: IdentityProvider) -> None:
        self._paths = paths
        self._provider = provider
        self._servers: dict[str, WorkloadApiServer] = {}

    async def start(self) -> None:
        """Open the node's socket, which only root can. Raises OSError."""
        await self._open("", WorkloadApiServer(self._provider.node_source(), self._paths.run / SOCKET, mode=0o600))

    async def open(self, pod: Pod) -> None:
        """Open the pod's socket, for every user of its containers. Raises OSError."""
        uid = pod.metadata.uid
        directory = self._paths.workload_api_dir(uid)
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
