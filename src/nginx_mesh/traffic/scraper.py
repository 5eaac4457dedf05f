"""Reads what the sidecars of this machine count, so that traffic is known without a Prometheus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.protocol.control import SidecarUnreachableError

from .connections import carried
from .exposition import ExpositionError, Series, read
from .flows import Flow, flows
from .graph import Link, Node, links
from .history import History
from .server import WINDOW
from .timeline import Timeline

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
_TIMELINE_SECONDS = 900.0


ReadMetrics = Callable[[ObjectKey, float], Awaitable[str]]
"""What the sidecar of a pod exposes, given within so many seconds. Raises SidecarUnreachableError."""


class Scraper:
    """Asks the sidecars that `live` tells (by pod, with the pods' uids) every few seconds for what `metrics` gives.

    `timeline` has a point for each time, `silent` why sidecars gave nothing, `breakers` the states of the circuits of
    those that did; both by the uid of their pods.
    """

    def __init__(self, live: Callable[[], Mapping[ObjectKey, str]], metrics: ReadMetrics) -> None:
        self._live = live
        self._metrics = metrics
        self._history = History(WINDOW)
        self.timeline = Timeline(round(_TIMELINE_SECONDS / INTERVAL_SECONDS))
        self.silent: dict[str, str] = {}
        self.breakers: dict[str, Mapping[Series, float]] = {}

    async def run(self) -> None:
        """Do so until cancelled."""
        while True:
            try:
                await self._scrape()
            except Exception:
                log.exception("cannot read the sidecars' metrics")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def flows(self, window: float) -> Sequence[Flow]:
        """Who called whom in the last so many seconds, as it was at the last time that sidecars were asked."""
        history, now = self._history.copy(), time.monotonic()
        return await asyncio.to_thread(lambda: flows(history.increases(now, window)))

    async def links(self, *windows: float) -> list[dict[tuple[Node, Node], Link]]:
        """The same of workloads, per second, with their TCP connections, for each window."""
        history, now = self._history.copy(), time.monotonic()

        def add_up(window: float) -> dict[tuple[Node, Node], Link]:
            rates = list(history.rates(now, window))
            return links(flows(rates), carried(rates))

        # Of a thousand sidecars it takes a second, for which nobody else is to wait.
        return await asyncio.to_thread(lambda: list(map(add_up, windows)))

    async def _scrape(self) -> None:
        live = dict(self._live())
        uids = set(live.values())
        self._history.retain(uids)
        for gone in (self.silent.keys() | self.breakers.keys()) - uids:
            self.silent.pop(gone, None)
            self.breakers.pop(gone, None)
        # One after another: thousands of them are no reason to leave everything else waiting.
        for pod, uid in live.items():
            try:
                text = await self._metrics(pod, _TIMEOUT_SECONDS)
                exposed, now = read(text), time.monotonic()
                since = None if exposed.since is None else now - (time.time() - exposed.since)
                self._history.record(uid, now, exposed.counters, since)
                self.timeline.add(flows(self._history.rates_of(uid, now, INTERVAL_SECONDS / 2)))
                self.breakers[uid] = exposed.breakers
                self.silent.pop(uid, None)
            except (SidecarUnreachableError, ExpositionError) as error:
                log.debug("the sidecar of pod %s gives no metrics: %s", uid, error)
                self.silent[uid] = str(error)
                self.breakers.pop(uid, None)
        self.timeline.close(time.time())
