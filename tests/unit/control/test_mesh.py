"""What the mesh waits for before a pod is stopped: those that may still call it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from nginx_mesh.api.annotations import INJECTED, SIDECAR_CONTAINER, STATUS
from nginx_mesh.api.core import Pod
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.control.mesh import Mesh
from nginx_mesh.identity.agent.agent import Agent
from nginx_mesh.identity.common.keymanager.memory import MemoryKeyManager
from nginx_mesh.identity.inprocess import InProcessClient
from nginx_mesh.identity.server.authority import Authority, IdentitySettings
from nginx_mesh.identity.server.datastore import IN_MEMORY, open_datastore

CONDITIONS = [{"type": "Ready", "status": "True"}]


def meshed(*, ready: bool) -> Pod:
    return msgspec.convert(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "annotations": {STATUS: INJECTED}},
            "spec": {"containers": [{"name": "web"}, {"name": SIDECAR_CONTAINER}]},
            "status": {"phase": "Running", "conditions": CONDITIONS if ready else [], "podIPs": [{"ip": "10.244.0.9"}]},
        },
        Pod,
    )


async def waits(tmp_path: Path, pod: Pod) -> bool:
    """Whether the mesh waits for the pod's sidecar, which does not answer."""
    authority = Authority(
        IdentitySettings("example.org"),
        key_manager=MemoryKeyManager(),
        datastore=open_datastore(IN_MEMORY, tmp_path),
    )
    await authority.start()
    agent = Agent(InProcessClient(authority, "spiffe://example.org/nginx-mesh/agent/test"))
    mesh = Mesh([pod], MeshSettings(), agent, control_socket=lambda uid: tmp_path / uid, warn=lambda *_: None)
    mesh.serve(pod)
    synced = asyncio.create_task(mesh.synced(30))
    await asyncio.sleep(0.05)
    waiting = not synced.done()
    await mesh.close()
    await asyncio.wait_for(synced, 5)
    await authority.close()
    return waiting


async def test_a_sidecar_that_served_before_this_daemon_began_is_waited_for(tmp_path: Path) -> None:
    assert await waits(tmp_path, meshed(ready=True))


async def test_a_sidecar_that_has_not_come_up_yet_is_not_waited_for(tmp_path: Path) -> None:
    assert not await waits(tmp_path, meshed(ready=False))
