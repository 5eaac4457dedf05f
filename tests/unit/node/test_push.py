"""The pusher against a real server on a unix socket that enforces the control protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.node.push import Pace, Pusher, StateRefusedError
from nginx_mesh.protocol.standing import SidecarStanding
from nginx_mesh.protocol.state import Settings, Update
from tests.eventually import eventually
from tests.unit.node.sidecar import KEY, OTHER, PACE, POD, Author, Sidecar, identity


@pytest.fixture
async def sidecar(tmp_path: Path) -> AsyncIterator[Sidecar]:
    sidecar = Sidecar(tmp_path / "control.sock")
    await sidecar.start()
    yield sidecar
    await sidecar.kill()


async def test_a_full_state_comes_first_and_then_only_what_changed(sidecar: Sidecar) -> None:
    author = Author()
    async with Pusher(author, pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        assert await pusher.synced(POD) == author.version
        author.grow()
        pusher.changed([POD])
        assert await pusher.synced(POD) == author.version == sidecar.version
    assert [update["base"] for update in sidecar.updates] == [None, 1000]
    assert sidecar.updates[1]["set"] == {}
    assert list(sidecar.state["cluster/a/b:80"]["endpoints"]) == ["10.0.0.1000:80"]


async def test_changes_during_a_push_are_sent_together(sidecar: Sidecar) -> None:
    author = Author()
    async with Pusher(author, pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        await pusher.synced(POD)
        sidecar.delay, start = 0.1, asyncio.get_running_loop().time()
        for _ in range(50):
            author.grow()
            pusher.changed([POD])
            await asyncio.sleep(0.001)
        await pusher.synced(POD)
        elapsed = asyncio.get_running_loop().time() - start
    assert len(sidecar.state["cluster/a/b:80"]["endpoints"]) == 50
    # One push takes as long as the sidecar delays it, however slow the machine is.
    assert len(sidecar.updates) <= 2 + elapsed / sidecar.delay


async def test_a_conflict_is_answered_with_the_full_state(sidecar: Sidecar) -> None:
    author = Author()
    async with Pusher(author, pace=Pace(pause=0.001, check=60)) as pusher:
        pusher.serve(POD, sidecar.path)
        await pusher.synced(POD)
        sidecar.version, sidecar.state = 7, {"cluster/of/another:80": {}}
        author.grow()
        pusher.changed([POD])
        await pusher.synced(POD)
    assert [update["base"] for update in sidecar.updates] == [None, 1000, None]
    assert list(sidecar.state) == ["cluster/a/b:80"]


async def test_a_sidecar_that_starts_late_is_served_when_it_is_there(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path / "control.sock")
    async with Pusher(Author(), pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        await asyncio.sleep(0.05)
        await sidecar.start()
        assert await pusher.synced(POD) == sidecar.version
    await sidecar.kill()


async def test_a_sidecar_killed_and_started_gets_its_state_again_though_nothing_changed(sidecar: Sidecar) -> None:
    author = Author()
    async with Pusher(author, pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        await pusher.synced(POD)
        await sidecar.kill()
        await asyncio.sleep(0.1)
        await sidecar.start()
        await eventually(lambda: sidecar.version == author.version, "the sidecar has the newest version")
    assert sidecar.updates[-1]["base"] is None


async def test_a_sidecar_reported_as_restarted_gets_its_state_without_waiting_for_the_check(sidecar: Sidecar) -> None:
    async with Pusher(Author(), pace=Pace(check=60)) as pusher:
        pusher.serve(POD, sidecar.path)
        await pusher.synced(POD)
        await sidecar.kill()
        await sidecar.start()
        pusher.restarted(POD)
        assert await pusher.synced(POD) == sidecar.version


async def test_a_control_plane_that_restarts_replaces_what_the_sidecar_has(sidecar: Sidecar) -> None:
    async with Pusher(Author(first=1000), pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        await pusher.synced(POD)
    # The next run's version numbers overlap those of the first, as after a clock that was set back.
    successor = Author(first=995)
    for _ in range(5):
        successor.grow()
    async with Pusher(successor, pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        await pusher.synced(POD)
    assert sidecar.updates[-1]["base"] is None
    assert len(sidecar.state["cluster/a/b:80"]["endpoints"]) == 5


async def test_a_refused_state_is_reported_and_the_old_one_stays(
    sidecar: Sidecar, caplog: pytest.LogCaptureFixture
) -> None:
    author, refusals = Author(), list[StateRefusedError]()
    async with Pusher(author, refused=refusals.append, pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        await pusher.synced(POD)
        before = sidecar.version
        sidecar.malformed["settings"] = "mtls_mode is not one of off, permissive, strict"
        author.extra = {"settings": _settings()}
        author.grow()
        pusher.changed([POD])
        with pytest.raises(StateRefusedError, match=r"Pod default/web-0 refused settings: mtls_mode is not one of"):
            await pusher.synced(POD)
        with pytest.raises(StateRefusedError):
            await pusher.synced(POD)
        assert sidecar.version == before
        assert [(refusal.pod, refusal.refusal.key) for refusal in refusals] == [(POD, "settings")]
        pushes = len(sidecar.updates)
        await asyncio.sleep(3 * PACE.check)
        assert len(sidecar.updates) == pushes, "a refused state is not pushed again until something changes"
        author.extra = {}
        author.grow()
        pusher.changed([POD])
        assert await pusher.synced(POD) == sidecar.version > before
    assert "refused settings: mtls_mode" in caplog.text


async def test_a_sidecars_standing_tells_whether_it_has_all_and_if_not_why_and_since_when(sidecar: Sidecar) -> None:
    def state() -> str:
        standing = pusher.standing(POD)
        return "" if standing is None else standing.state

    author = Author()
    async with Pusher(author, pace=PACE) as pusher:
        assert pusher.standing(POD) is None
        pusher.serve(POD, sidecar.path)
        assert state() == "pending"
        await pusher.synced(POD)
        assert pusher.standing(POD) == SidecarStanding("synced", author.version)

        sidecar.malformed["settings"] = "mtls_mode is not one of off, permissive, strict"
        author.extra = {"settings": _settings()}
        author.grow()
        pusher.changed([POD])
        await eventually(lambda: state() == "refused", lambda: f"refused; it is {state()}")
        standing = pusher.standing(POD)
        assert standing is not None and standing.version == sidecar.version and "mtls_mode" in standing.reason
        await asyncio.sleep(0.05)
        later = pusher.standing(POD)
        assert later is not None and later.behind >= standing.behind + 0.05

        author.extra = {}
        pusher.changed([POD])
        await eventually(lambda: state() == "synced", lambda: f"synced; it is {state()}")
        await sidecar.kill()
        await eventually(lambda: state() == "unreachable", lambda: f"unreachable; it is {state()}")
        await sidecar.start()
        await eventually(lambda: state() == "synced", lambda: f"synced; it is {state()}")


async def test_private_keys_do_not_reach_logs_or_exceptions(sidecar: Sidecar, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    author, refusals = Author(), list[StateRefusedError]()
    author.extra = {"identity": identity()}
    sidecar.malformed["identity"] = f"cannot read {KEY}"
    async with Pusher(author, refused=refusals.append, pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        with pytest.raises(StateRefusedError) as caught:
            await pusher.synced(POD)
        sidecar.malformed["identity"] = "cut short: -----BEGIN PRIVATE KEY-----\nc2VjcmV0IHNlY3JldA"
        pusher.changed([POD])
        await eventually(lambda: len(refusals) == 2, lambda: f"two refusals: {refusals}")
        await sidecar.kill()
        pusher.changed([POD])
        await asyncio.sleep(0.05)
    shown = caplog.text + str(caught.value) + repr(caught.value) + "".join(map(repr, refusals))
    assert "cannot read <PEM removed>" in shown
    assert "c2VjcmV0" not in shown
    assert "c2VjcmV0" not in repr(author(POD, None))


async def test_an_answer_that_is_not_of_the_protocol_is_tried_again(tmp_path: Path) -> None:
    answers = [(500, "oops"), (200, "[]"), (200, '{"version": 1}'), (409, '{"version": 3}')]
    path, sidecar = tmp_path / "control.sock", Sidecar(tmp_path / "control.sock")

    async def answer(request: web.Request) -> web.StreamResponse:
        if answers:
            status, text = answers.pop(0)
            return web.Response(status=status, text=text)
        return await sidecar._put(request)

    app = web.Application()
    app.router.add_put("/v1/state", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        async with Pusher(Author(), pace=PACE) as pusher:
            pusher.serve(POD, path)
            assert await pusher.synced(POD) == sidecar.version
    finally:
        await runner.cleanup()


async def test_one_sidecar_that_hangs_does_not_hold_up_another(sidecar: Sidecar, tmp_path: Path) -> None:
    hanging = Sidecar(tmp_path / "hanging.sock")
    hanging.delay = 60
    await hanging.start()
    try:
        async with Pusher(Author(), pace=PACE) as pusher:
            pusher.serve(OTHER, hanging.path)
            pusher.serve(POD, sidecar.path)
            assert await pusher.synced(POD) == sidecar.version
    finally:
        await hanging.kill()


async def test_a_fault_in_the_source_is_logged_and_the_next_change_is_pushed(
    sidecar: Sidecar, caplog: pytest.LogCaptureFixture
) -> None:
    author, faults = Author(), [ZeroDivisionError("fault")]

    def source(pod: ObjectKey, base: int | None) -> Update | None:
        if faults:
            raise faults.pop()
        return author(pod, base)

    async with Pusher(source, pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        assert await pusher.synced(POD) == sidecar.version
    assert "cannot push to the sidecar of Pod default/web-0" in caplog.text


async def test_a_pod_the_source_does_not_know_yet_is_pushed_once_it_does(sidecar: Sidecar) -> None:
    author, known = Author(), list[ObjectKey]()
    async with Pusher(lambda pod, base: author(pod, base) if pod in known else None, pace=PACE) as pusher:
        pusher.serve(POD, sidecar.path)
        waiter = asyncio.create_task(pusher.synced(POD))
        await asyncio.sleep(0.02)
        assert not waiter.done()
        known.append(POD)
        pusher.changed([POD])
        assert await waiter == sidecar.version


async def test_dropping_a_sidecar_cancels_who_waits_for_it(tmp_path: Path) -> None:
    async with Pusher(Author(), pace=PACE) as pusher:
        pusher.serve(POD, tmp_path / "control.sock")
        waiter = asyncio.create_task(pusher.synced(POD))
        await asyncio.sleep(0.02)
        await pusher.drop(POD)
        with pytest.raises(asyncio.CancelledError):
            await waiter
        with pytest.raises(KeyError):
            await pusher.synced(POD)
        pusher.serve(POD, tmp_path / "control.sock")


def _settings() -> Settings:
    return Settings(
        mtls_mode="off",
        trust_domain="example.org",
        client_max_body_size=0,
        log_level="warn",
        log_format="default",
        addresses=[],
        labels={},
    )
