"""Background tasks of one owner."""

from __future__ import annotations

import asyncio

import pytest

from nginx_mesh.observe.tasks import TaskSet
from tests.eventually import eventually


async def test_a_task_that_fails_is_logged_by_its_name_and_the_others_continue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError("the disk is full")

    done: list[str] = []

    async def succeed() -> None:
        await asyncio.sleep(0.01)
        done.append("done")

    tasks = TaskSet()
    tasks.start(succeed(), "succeed")
    tasks.start(fail(), "write a file")
    await eventually(lambda: done and caplog.records, "one task has failed, the other has ended")
    assert [record.getMessage() for record in caplog.records] == ["cannot write a file"]
    assert "the disk is full" in caplog.text


async def test_closing_cancels_all_tasks_waits_for_them_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []

    async def run(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    tasks = TaskSet()
    for number in range(3):
        tasks.start(run(number), "wait")
    await asyncio.sleep(0)
    await tasks.close()
    assert sorted(ended) == [0, 1, 2]
    assert caplog.records == []


async def test_one_task_can_be_cancelled_alone() -> None:
    tasks = TaskSet()
    first, second = (tasks.start(asyncio.sleep(60), "wait") for _ in range(2))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled() and not second.done()
    await tasks.close()
    assert second.cancelled()
