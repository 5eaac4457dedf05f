"""/metrics, /healthz and /readyz of a process, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nginx_mesh.api.values import HostPort
from nginx_mesh.observe import MonitoringEndpoints, Part, endpoints, listen
from nginx_mesh.version import version

from .promtool import complaints


async def answer(path: str, parts: dict[str, Part], directory: Path, *collectors: Collector) -> tuple[int, Any]:
    """Status and body of one request to a server with these parts."""
    socket = directory / "health.sock"
    runner = await listen(MonitoringEndpoints(parts, collectors), socket)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
            session.get(f"http://process{path}") as response,
        ):
            is_json = response.content_type == "application/json"
            return response.status, await (response.json() if is_json else response.text())
    finally:
        await runner.cleanup()


async def slowly() -> str:
    await asyncio.sleep(0.01)
    return "it is being looked for"


async def never() -> str:
    await asyncio.sleep(60)
    return ""


def broken() -> str:
    raise RuntimeError("it fell over")


async def test_readyz_names_each_part_that_is_not_ready_and_why(tmp_path: Path) -> None:
    code, said = await answer("/readyz", {"store": lambda: "", "ca": slowly, "other": broken}, tmp_path)
    assert code == 503
    assert said == {
        "ready": False,
        "parts": {"store": "ok", "ca": "it is being looked for", "other": "cannot be told: it fell over"},
    }


async def test_readyz_does_not_wait_for_a_part_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_PART_SECONDS", 0.05)
    code, said = await answer("/readyz", {"datastore": never}, tmp_path)
    assert (code, said["parts"]["datastore"]) == (503, "it says nothing within 0 s")


async def test_readyz_is_200_only_when_all_parts_are_ready_and_healthz_checks_none(tmp_path: Path) -> None:
    assert await answer("/readyz", {"store": lambda: ""}, tmp_path) == (200, {"ready": True, "parts": {"store": "ok"}})
    assert await answer("/healthz", {"other": broken}, tmp_path) == (200, {"status": "ok"})


class Measured(Collector):
    def __init__(self) -> None:
        self.value = 3

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("nginx_mesh_test_things", "Things.", value=self.value)


async def test_metrics_have_counters_and_the_values_of_collectors(tmp_path: Path) -> None:
    measured = Measured()
    for value in (3, 4):
        measured.value = value
        code, text = await answer("/metrics", {}, tmp_path, measured)
        assert code == 200
        assert f"\nnginx_mesh_test_things {value}.0\n" in text
    assert f'nginx_mesh_build_info{{version="{version()}"}} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert complaints(text) == ""


async def test_an_address_that_is_taken_is_an_error_and_leaves_nothing_behind() -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        await listen(MonitoringEndpoints({}), HostPort("127.0.0.1", port))
    taken.close()
