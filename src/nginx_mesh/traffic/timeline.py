"""The traffic of every workload over time, a point each time that the sidecars were asked."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import nan

from .flows import Counts, Flow
from .graph import Node, node_of
from .measure import Direction

_QUANTILES = (0.5, 0.9, 0.99)
_WIDTH = 3 + len(_QUANTILES)  # when, rate, success, quantiles


@dataclass(frozen=True, slots=True)
class Course:
    """Values at `Timeline.times`, None where there was no traffic: requests per second, the share that succeeded, and
    milliseconds that half, 90 % and 99 % of them stayed below.
    """

    rate: list[float] = field(default_factory=list)
    success: list[float | None] = field(default_factory=list)
    p50: list[float | None] = field(default_factory=list)
    p90: list[float | None] = field(default_factory=list)
    p99: list[float | None] = field(default_factory=list)


class Timeline:
    """The last `points` points. What had no traffic takes no memory."""

    def __init__(self, points: int) -> None:
        self._times: deque[float] = deque(maxlen=points)
        self._open: dict[tuple[Node, Direction], Counts] = {}
        self._kept: dict[tuple[Node, Direction], array[float]] = {}

    @property
    def times(self) -> list[float]:
        """When points were made, seconds since the epoch, the newest last."""
        return list(self._times)

    def add(self, flows: Iterable[Flow]) -> None:
        """Take in traffic, per second, for the next point."""
        for flow in flows:
            ends: tuple[tuple[Direction, Node | None], ...] = (
                ("to", node_of(flow.source)),
                ("from", node_of(flow.destination)),
            )
            for direction, node in ends:
                if node is not None:
                    self._open.setdefault((node, direction), Counts()).add(flow.counts)

    def close(self, now: float) -> None:
        """Make a point of what was added since the last one."""
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

    def course(self, node: Node, direction: Direction) -> Course:
        """What a workload received ("from" others) or sent ("to" them)."""
        course, kept = Course(), self._kept.get((node, direction), array("d"))
        points = {kept[at]: kept[at + 1 : at + _WIDTH] for at in range(0, len(kept), _WIDTH)}
        for when in self._times:
            rate, *others = points.get(when, (0.0, nan, nan, nan, nan))
            course.rate.append(rate)
            for values, value in zip((course.success, course.p50, course.p90, course.p99), others, strict=True):
                values.append(None if value != value else value)
        return course
