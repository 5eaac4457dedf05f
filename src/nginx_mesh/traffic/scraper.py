"""Scrapes the metrics of a mesh's sidecars, so that its traffic can be shown without a Prometheus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.protocol.control import SidecarUnreachableError

from .connections import tcp_flows
from .exposition import ExpositionError, Series, read
from .flows import Flow, flows
from .graph import Edge, NodePair, edges
from .history import History
from .server import WINDOW
from .timeline import Timeline

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
_TIMELINE_SECONDS = 900.0


ReadMetrics = Callable[[ObjectKey, float], Awaitable[str]]
"""Reads the metrics of a pod's sidecar within so many seconds. Raises SidecarUnreachableError."""


class Scraper:
    """Scrapes all sidecars every few seconds. `live` gives their pods with the uids, `metrics` reads one sidecar.

    `timeline` has a point for each scrape. `silent` has the sidecars that gave no metrics at the last scrape and why,
    `breakers` the circuit breaker metrics of those that did; both are by the uid of the pod.
    """

    def __init__(
        self,
        live: Callable[[], Mapping[ObjectKey, str]],
        metrics: ReadMetrics,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._history = History(WINDOW)
        self.timeline = Timeline(round(_TIMELINE_SECONDS / INTERVAL_SECONDS))
        self.silent: dict[str, str] = {}
        self.breakers: dict[str, Mapping[Series, float]] = {}

    async def run(self) -> None:
        """Scrape until cancelled."""
        while True:
            try:
                await self.scrape()
            except Exception:
                log.exception("cannot read the sidecars' metrics")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def flows(self, window: float) -> Sequence[Flow]:
        """The requests of the last `window` seconds, as of the last scrape."""
        history, now = self._history.copy(), self._monotonic()
        return await asyncio.to_thread(lambda: flows(history.increases(now, window)))

    async def edges(self, *windows: float) -> list[dict[NodePair, Edge]]:
        """The edges of the graph of workloads, per second, for each of these windows (seconds)."""
        history, now = self._history.copy(), self._monotonic()

        def edges_of(window: float) -> dict[NodePair, Edge]:
            rates = list(history.rates(now, window))
            return edges(flows(rates), tcp_flows(rates))

        # For a thousand sidecars this takes a second, in which the event loop shall not stand still.
        return await asyncio.to_thread(lambda: list(map(edges_of, windows)))

    async def scrape(self) -> None:
        """Scrape every sidecar once."""
        live = dict(self._live())
        uids = set(live.values())
        self._history.retain(uids)
        for gone in (self.silent.keys() | self.breakers.keys()) - uids:
            self.silent.pop(gone, None)
            self.breakers.pop(gone, None)
        # The sidecars are scraped one after the other, because a thousand at once would hold up the event loop.
        for pod, uid in live.items():
            try:
                text = await self._metrics(pod, _TIMEOUT_SECONDS)
                exposition, now = read(text), self._monotonic()
                started = None if exposition.started is None else now - (self._clock() - exposition.started)
                self._history.record(uid, now, exposition.counters, started)
                self.timeline.add(flows(self._history.rates_of(uid, now, INTERVAL_SECONDS / 2)))
                self.breakers[uid] = exposition.breakers
                self.silent.pop(uid, None)
            except (SidecarUnreachableError, ExpositionError) as error:
                log.debug("the sidecar of pod %s gives no metrics: %s", uid, error)
                self.silent[uid] = str(error)
                self.breakers.pop(uid, None)
        self.timeline.close(self._clock())
