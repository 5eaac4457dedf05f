"""The traffic of every workload over time, with one point for each scrape of the sidecars."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import nan

from nginx_mesh.traffic.graph import GraphNode

from .flows import Counts, Flow
from .graph import node_of
from .measure import Direction

_QUANTILES = (0.5, 0.9, 0.99)
_WIDTH = 3 + len(_QUANTILES)  # values of a point: time, rate, success, quantiles


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """Values at `Timeline.times`: requests per second, the share of them that succeeded, and latency quantiles in
    milliseconds. All but `rate` are None where there was no traffic.
    """

    rate: list[float] = field(default_factory=list)
    success: list[float | None] = field(default_factory=list)
    p50: list[float | None] = field(default_factory=list)
    p90: list[float | None] = field(default_factory=list)
    p99: list[float | None] = field(default_factory=list)


class Timeline:
    """Keeps the last `points` points. A workload without traffic takes no memory."""

    def __init__(self, points: int) -> None:
        self._times: deque[float] = deque(maxlen=points)
        self._open: dict[tuple[GraphNode, Direction], Counts] = {}
        self._kept: dict[tuple[GraphNode, Direction], array[float]] = {}

    @property
    def times(self) -> list[float]:
        """The times of the points, seconds since the epoch, the newest last."""
        return list(self._times)

    def add(self, flows: Iterable[Flow]) -> None:
        """Add traffic (per second) to the next point."""
        for flow in flows:
            ends: tuple[tuple[Direction, GraphNode | None], ...] = (
                ("to", node_of(flow.source)),
                ("from", node_of(flow.destination)),
            )
            for direction, node in ends:
                if node is not None:
                    self._open.setdefault((node, direction), Counts()).add(flow.counts)

    def close(self, now: float) -> None:
        """Make a point, at time `now`, of the traffic that was added since the last one."""
        self._times.append(now)
        for key, counts in self._open.items():
            requests = counts.success + counts.failure
            if requests > 0:
                quantiles = (nan if (value := counts.quantile(q)) is None else value for q in _QUANTILES)
                point = (now, requests, counts.success / requests, *quantiles)
                self._kept.setdefault(key, array("d")).extend(point)
        self._open.clear()
        for key, kept in tuple(self._kept.items()):
            while kept and kept[0] < self._times[0]:
                del kept[:_WIDTH]
            if not kept:
                del self._kept[key]

    def series(self, node: GraphNode, direction: Direction) -> TimeSeries:
        """The requests that a workload received ("from" others) or sent ("to" them)."""
        series, kept = TimeSeries(), self._kept.get((node, direction), array("d"))
        points = {kept[at]: kept[at + 1 : at + _WIDTH] for at in range(0, len(kept), _WIDTH)}
        for when in self._times:
            rate, *others = points.get(when, (0.0, nan, nan, nan, nan))
            series.rate.append(rate)
            for values, value in zip((series.success, series.p50, series.p90, series.p99), others, strict=True):
                values.append(None if value != value else value)
        return series
