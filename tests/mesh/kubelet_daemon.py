"""A daemon for tests to kill: runs the pods it reads from stdin in the mesh given as argument, and says when ready."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.podstatus import PodStatus
from nginx_mesh.local.net.netns import enter_node
from nginx_mesh.local.node.kubelet import Kubelet
from nginx_mesh.local.paths import MeshPaths


async def main(name: str, root: str) -> None:
    pods = msgspec.json.decode(sys.stdin.buffer.readline(), type=list[Pod])
    ready: set[ObjectKey] = set()

    def on_status(key: ObjectKey, status: PodStatus) -> None:
        if status.ready:
            ready.add(key)

    kubelet = Kubelet(
        MeshPaths(name, Path(root)),
        images={},
        lookup=lambda _: None,
        on_status=on_status,
        on_probe_failure=lambda *_: None,
        node_name="local",
    )
    await kubelet.start(pods)
    for pod in pods:
        await kubelet.run_pod(pod)
    while len(ready) < len(pods):
        await asyncio.sleep(0.02)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    enter_node(sys.argv[1])
    asyncio.run(main(*sys.argv[1:]))
