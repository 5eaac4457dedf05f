"""The scraper: what sidecars counted becomes flows, edges and a timeline, also when sidecars fail, restart and go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.protocol.control import SidecarUnreachableError
from nginx_mesh.traffic import scraper as scraping
from nginx_mesh.traffic.graph import GraphNode
from nginx_mesh.traffic.scraper import INTERVAL_SECONDS, Scraper
from nginx_mesh.traffic.server import WINDOW
from tests.eventually import eventually

from .sidecarmetrics import SidecarMetrics

EPOCH = 1_700_000_000.0
CLIENT, WEB, DB = (GraphNode("shop", "deployment", name) for name in ("client", "web", "db"))
WEB_POD = {"pod": "web-1", "namespace": "shop", "deployment": "web", "service": "web"}
DB_POD = {"pod": "db-0", "namespace": "shop", "deployment": "db"}


class Mesh:
    """Sidecars with a scraper, and a clock that only `scrape` moves on. A sidecar may be a text, or an error."""

    def __init__(self, **sidecars: SidecarMetrics | str | None) -> None:
        self.sidecars: dict[str, SidecarMetrics | str | None] = dict(sidecars)
        self.seconds = 0.0
        self.scraper = Scraper(
            self.live, self.metrics, clock=lambda: EPOCH + self.seconds, monotonic=lambda: 7000 + self.seconds
        )

    def live(self) -> Mapping[ObjectKey, str]:
        return {ObjectKey("Pod", "shop", name): f"uid-{name}" for name in self.sidecars}

    async def metrics(self, pod: ObjectKey, _: float) -> str:
        sidecar = self.sidecars[pod.name]
        if sidecar is None:
            raise SidecarUnreachableError("connection refused")
        return sidecar if isinstance(sidecar, str) else sidecar.text()

    async def scrape(self) -> None:
        self.seconds += INTERVAL_SECONDS
        await self.scraper.scrape()

    async def requests(self) -> dict[str, tuple[float, float]]:
        """Requests of the last 30 s that succeeded and failed, by the name of the calling pod."""
        flows = await self.scraper.flows(WINDOW)
        return {flow.source["pod"]: (flow.counts.success, flow.counts.failure) for flow in flows}


def sidecar(name: str = "client", started: float | None = None) -> SidecarMetrics:
    return SidecarMetrics(started, pod=name, namespace="shop", deployment="client")


async def test_flows_are_what_was_added_between_scrapes() -> None:
    one = sidecar()
    one.requests(100, WEB_POD)
    mesh = Mesh(client=one)
    await mesh.scrape()
    assert await mesh.requests() == {}  # counted before the scraper knew the sidecar
    one.requests(3, WEB_POD)
    one.requests(1, WEB_POD, "5xx")
    await mesh.scrape()
    assert await mesh.requests() == {"client": (3, 1)}


async def test_the_first_scrape_of_a_sidecar_that_started_within_the_window_counts() -> None:
    one = sidecar(started=EPOCH)
    one.requests(4, WEB_POD)
    mesh = Mesh(client=one)
    await mesh.scrape()
    assert await mesh.requests() == {"client": (4, 0)}


async def test_edges_are_rates_of_each_window_with_tcp_and_services() -> None:
    one = sidecar()
    mesh = Mesh(client=one)
    await mesh.scrape()
    one.requests(20, WEB_POD)
    await mesh.scrape()
    one.requests(10, WEB_POD, mtls=False)
    one.connections(5, DB_POD)
    await mesh.scrape()
    whole, recent = await mesh.scraper.edges(WINDOW, INTERVAL_SECONDS / 2)
    assert whole[CLIENT, WEB].counts.success == pytest.approx(3)
    assert whole[CLIENT, WEB].counts.mtls == pytest.approx(2)
    assert whole[CLIENT, WEB].services == {"shop/web"}
    assert whole[CLIENT, DB].tcp.tried == whole[CLIENT, DB].tcp.mtls == pytest.approx(0.5)
    assert recent[CLIENT, WEB].counts.success == pytest.approx(2)
    assert recent[CLIENT, WEB].counts.mtls == 0


async def test_each_scrape_is_a_point_of_the_timeline() -> None:
    one = sidecar()
    mesh = Mesh(client=one)
    await mesh.scrape()
    one.requests(10, WEB_POD)
    await mesh.scrape()
    await mesh.scrape()
    assert mesh.scraper.timeline.times == [EPOCH + 5, EPOCH + 10, EPOCH + 15]
    assert mesh.scraper.timeline.series(WEB, "from").rate == [0, 2, 0]
    assert mesh.scraper.timeline.series(CLIENT, "to").rate == [0, 2, 0]


@pytest.mark.parametrize(("broken", "reason"), [(None, "connection refused"), ("nginx{", "")])
async def test_a_sidecar_without_metrics_is_silent_until_it_gives_them_and_others_are_read(
    broken: str | None, reason: str
) -> None:
    one, other = sidecar("client-1"), sidecar("client-2")
    mesh = Mesh(client_1=one, client_2=other)
    await mesh.scrape()
    assert mesh.scraper.silent == {}
    one.requests(1, WEB_POD)
    other.requests(2, WEB_POD)
    mesh.sidecars["client_1"] = broken
    await mesh.scrape()
    assert list(mesh.scraper.silent) == ["uid-client_1"]
    assert reason in mesh.scraper.silent["uid-client_1"]
    assert await mesh.requests() == {"client-2": (2, 0)}
    mesh.sidecars["client_1"] = one
    await mesh.scrape()
    assert mesh.scraper.silent == {}
    assert await mesh.requests() == {"client-1": (1, 0), "client-2": (2, 0)}  # it went on counting meanwhile


@pytest.mark.parametrize("known_start", [True, False])
async def test_counters_that_a_restart_set_to_zero_add_to_those_from_before(known_start: bool) -> None:
    one = sidecar(started=EPOCH - 3600 if known_start else None)
    one.requests(1000, WEB_POD)
    mesh = Mesh(client=one)
    await mesh.scrape()
    one.requests(7, WEB_POD)
    await mesh.scrape()
    restarted = mesh.sidecars["client"] = sidecar(started=EPOCH + mesh.seconds + 1 if known_start else None)
    restarted.requests(3, WEB_POD)
    await mesh.scrape()
    assert await mesh.requests() == {"client": (10, 0)}


async def test_the_start_tells_a_restart_after_which_a_counter_is_higher_than_before() -> None:
    one = sidecar(started=EPOCH - 3600)
    one.requests(10, WEB_POD)
    mesh = Mesh(client=one)
    await mesh.scrape()
    restarted = mesh.sidecars["client"] = sidecar(started=EPOCH + mesh.seconds + 1)
    restarted.requests(30, WEB_POD)
    await mesh.scrape()
    assert await mesh.requests() == {"client": (30, 0)}


async def test_a_sidecar_that_is_gone_leaves_nothing_behind() -> None:
    one, other = sidecar("client-1", EPOCH), sidecar("client-2", EPOCH)
    one.requests(1, WEB_POD)
    other.requests(2, WEB_POD)
    one.circuit("shop/web", "shop/web:80", "open")
    mesh = Mesh(client_1=one, client_2=other, client_3=None)
    await mesh.scrape()
    assert (list(mesh.scraper.silent), len(mesh.scraper.breakers)) == (["uid-client_3"], 2)
    del mesh.sidecars["client_1"], mesh.sidecars["client_3"]
    await mesh.scrape()
    assert mesh.scraper.silent == {}
    assert list(mesh.scraper.breakers) == ["uid-client_2"]
    assert await mesh.requests() == {"client-2": (2, 0)}


async def test_circuits_are_as_the_sidecar_last_said_and_unknown_while_it_is_silent() -> None:
    one = sidecar()
    mesh = Mesh(client=one)
    for state, value in (("closed", 0), ("open", 1), ("half_open", 2)):
        one.circuit("shop/web", "shop/web:80", state)
        await mesh.scrape()
        ((series, found),) = mesh.scraper.breakers["uid-client"].items()
        assert (dict(series[1])["breaker"], dict(series[1])["upstream"], found) == ("shop/web", "shop/web:80", value)
    mesh.sidecars["client"] = None
    await mesh.scrape()
    assert mesh.scraper.breakers == {}


async def test_scraping_goes_on_after_an_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, failures = Mesh(client=sidecar()), [RuntimeError("unexpected")]

    def live() -> Mapping[ObjectKey, str]:
        if failures:
            raise failures.pop()
        return mesh.live()

    monkeypatch.setattr(scraping, "INTERVAL_SECONDS", 0.001)
    scraper = Scraper(live, mesh.metrics)
    running = asyncio.create_task(scraper.run())
    await eventually(lambda: scraper.timeline.times, "a scrape after the one that failed")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert failures == []
