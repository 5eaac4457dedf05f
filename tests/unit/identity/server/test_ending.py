"""What runs for ever ends when it is told to, whatever comes in at the same moment."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from nginx_mesh.api.spiffe import workload_id
from tests.unit.identity.authorities import HOURLY, Node, authority


@pytest.mark.parametrize("turns", range(4))
async def test_agent_and_authority_end_though_something_changed_just_then(turns: int) -> None:
    server = authority(time.time)
    await server.start()
    node = Node(server)
    await node.turn()

    def register() -> None:
        node.agent.register("pod", workload_id("example.org", "shop", "web"))

    def reconfigure() -> None:
        server.reconfigure(replace(HOURLY, svid_ttl=HOURLY.svid_ttl // 2))

    running: list[tuple[Coroutine[Any, Any, None], Callable[[], None]]] = [
        (node.agent.run(node.on_update), register),
        (server.run(), reconfigure),
    ]
    for run, change in running:
        task = asyncio.create_task(run)
        await asyncio.sleep(0.1)  # it waits for its next turn
        change()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=20)
        task.cancel()
        assert done, "it goes on"
    await server.close()
