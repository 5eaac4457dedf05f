"""Counters over time: how much each one increased within a window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from .exposition import Series


class _Scrape(NamedTuple):
    """`goes_on`: no series of the scrape before has become less or is gone."""

    when: float
    counters: Mapping[Series, float]
    goes_on: bool


class History:
    """The last scrapes of each source. Times are seconds of any one clock that does not go back.

    A window may be as long as `keep` seconds.
    """

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._scrapes: dict[str, deque[_Scrape]] = {}

    def record(self, source: str, now: float, counters: Mapping[Series, float], started: float | None = None) -> None:
        """Add a scrape of a source. `started` is when all its counters were 0, if that is known."""
        scrapes = self._scrapes.setdefault(source, deque())
        # A start from before the longest window is of no use.
        if started is not None and now - self._keep <= started < now and (not scrapes or scrapes[-1].when < started):
            scrapes.append(_Scrape(started, {}, not scrapes))
        before = scrapes[-1].counters if scrapes else {}
        goes_on = all(counters.get(series, -1.0) >= value for series, value in before.items())
        scrapes.append(_Scrape(now, counters, goes_on))
        # One scrape from before the longest window stays, as increases are counted from it.
        while len(scrapes) > 2 and scrapes[1].when <= now - self._keep:
            scrapes.popleft()

    def retain(self, sources: set[str]) -> None:
        """Forget all other sources."""
        for gone in self._scrapes.keys() - sources:
            del self._scrapes[gone]

    def copy(self) -> History:
        """A copy for another thread."""
        other = History(self._keep)
        other._scrapes = {source: scrapes.copy() for source, scrapes in self._scrapes.items()}
        return other

    def increases(self, now: float, window: float) -> Iterator[tuple[Series, float]]:
        """How much each series increased since `now - window`; series that did not increase are left out.

        Increases are counted from the last scrape before the window, or else from the first one that there is. A
        series that is new in a scrape began at 0. So did a series that has become less, as its process was restarted.
        """
        for scrapes in self._scrapes.values():
            yield from _added(_since(scrapes, now - window)).items()

    def rates(self, now: float, window: float) -> Iterator[tuple[Series, float]]:
        """How much each series increased per second, by the time that lies between the scrapes of its source."""
        for source in self._scrapes:
            yield from self.rates_of(source, now, window)

    def rates_of(self, source: str, now: float, window: float) -> Iterator[tuple[Series, float]]:
        """The same for one source."""
        pairs = _since(self._scrapes.get(source, ()), now - window)
        if pairs:
            seconds = pairs[-1][1].when - pairs[0][0].when
            for series, added in _added(pairs).items():
                yield series, added / seconds


def _since(scrapes: Iterable[_Scrape], start: float) -> list[tuple[_Scrape, _Scrape]]:
    """Neighbouring scrapes, from the last before `start` on."""
    return [(before, after) for before, after in pairwise(scrapes) if after.when > start]


def _added(pairs: Sequence[tuple[_Scrape, _Scrape]]) -> dict[Series, float]:
    if pairs and all(after.goes_on for _, after in pairs):
        pairs = [(pairs[0][0], pairs[-1][1])]  # the same in one step
    added: dict[Series, float] = {}
    for before, after in pairs:
        for series, value in after.counters.items():
            earlier = before.counters.get(series, 0.0)
            grown = value - earlier if value >= earlier else value
            if grown > 0:
                added[series] = added.get(series, 0.0) + grown
    return added
