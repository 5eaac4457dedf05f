"""How often the status of policies is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.compile.reach import Reach
from nginx_mesh.control import policyreporter as policystatus
from nginx_mesh.control.policyreporter import PolicyReporter
from nginx_mesh.control.policystatus import PolicyStanding
from nginx_mesh.local.api.events import EventLog
from nginx_mesh.local.api.store import ObjectChange, Store
from tests.eventually import eventually

PODS = frozenset(ObjectKey("Pod", "shop", f"web-{number}") for number in range(3))


class World:
    """Policies with their standing, which tests change, and a count of what was written."""

    def __init__(self, path: Path, count: int = 1) -> None:
        self.keys = [ObjectKey("TrafficTarget", "shop", f"t{number:04}") for number in range(count)]
        self.store = Store(path / "store.db", lambda: 0.0)
        with self.store.transaction() as tx:
            for key in self.keys:
                tx.put({"kind": key.kind, "metadata": {"name": key.name, "namespace": key.namespace}, "spec": {}})
        self.events = EventLog(lambda: 0.0)
        self.standing = {key: PolicyStanding(Reach(PODS, True, 1), 3, 3) for key in self.keys}
        self.statuses = PolicyReporter(self.store, self.store, self.events, self.standing.get, lambda: 0.0)
        self.written: list[ObjectChange] = []
        self.store.watch(self.written.append)
        self.task = asyncio.create_task(self.statuses.run())

    def set(self, version: int, updated: int, active: bool = True) -> None:
        for key in self.keys:
            self.standing[key] = PolicyStanding(Reach(PODS, active, version), 3, updated)
        self.statuses.touch(self.keys)

    def status(self) -> Resource:
        found = self.store.get(self.keys[0])
        assert found is not None
        status: Resource = found.get("status", {})
        return status

    async def until_written(self, count: int) -> None:
        await eventually(lambda: len(self.written) >= count, lambda: f"{count} statuses; there are {self.written}", 20)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.store.close()


@pytest.fixture(autouse=True)
def paces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policystatus, "_GATHER_SECONDS", 0.02)
    monkeypatch.setattr(policystatus, "_PATIENCE_SECONDS", 0.3)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


async def test_a_change_that_is_soon_acknowledged_is_one_write(world: World) -> None:
    world.set(1, 3)
    await world.until_written(1)
    for updated in range(4):
        world.set(2, updated)
        await asyncio.sleep(0.03)
    await world.until_written(2)
    assert world.status()["stateVersion"] == 2
    assert world.status()["updatedSidecars"] == 3
    await asyncio.sleep(0.5)
    assert len(world.written) == 2


async def test_what_stays_pending_is_told_after_a_while_and_again_when_it_is_not(world: World) -> None:
    world.set(1, 2)
    await world.until_written(1)
    assert world.status()["conditions"][0]["reason"] == "Pending"
    world.set(1, 3)
    await world.until_written(2)
    assert world.status()["conditions"][0]["status"] == "True"
    assert [event["reason"] for event in world.events.list()] == ["InForce"]


async def test_what_has_no_effect_is_a_warning(world: World) -> None:
    world.set(1, 3, active=False)
    await world.until_written(1)
    assert [(event["type"], event["reason"]) for event in world.events.list()] == [("Warning", "WithoutEffect")]


async def test_nothing_new_is_not_written(world: World) -> None:
    world.set(1, 3)
    await world.until_written(1)
    for _ in range(10):
        world.set(1, 3)
        await asyncio.sleep(0.03)
    assert len(world.written) == 1


async def test_a_status_is_no_change_of_what_the_policy_asks_for(world: World) -> None:
    world.set(1, 3)
    await world.until_written(1)
    (change,) = world.written
    assert change.old is not None
    assert change.new is not None
    assert change.new["metadata"]["generation"] == change.old["metadata"]["generation"] == 1
    assert world.status()["observedGeneration"] == 1


async def test_a_policy_that_has_gone_is_passed_over(world: World) -> None:
    with world.store.transaction() as tx:
        tx.remove(world.keys[0])
    world.set(1, 3)
    await asyncio.sleep(0.1)
    world.standing.clear()
    world.statuses.touch(world.keys)
    await asyncio.sleep(0.5)
    assert len(world.written) == 1
    assert not world.task.done()


async def test_a_thousand_policies_leave_room_for_others(tmp_path: Path) -> None:
    world = World(tmp_path, 1000)
    try:
        world.set(1, 3)
        # The processor's time, so that other processes of a busy machine do not count.
        longest, last = 0.0, time.process_time()
        while len(world.written) < 1000:
            await asyncio.sleep(0)
            longest, last = max(longest, time.process_time() - last), time.process_time()
        for updated in range(3):
            world.set(2, updated)
            await asyncio.sleep(0.03)
        world.set(2, 3)
        await world.until_written(2000)
        await asyncio.sleep(0.5)
        assert len(world.written) == 2000
        assert longest < 1.0
    finally:
        await world.close()
