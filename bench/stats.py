"""From samples to figures: medians over the rounds, and ratios between pairs measured side by side. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

import msgspec

from bench.load import Cell, Load

HEADLINE = Cell(32, "1k")
UNLOADED = Cell(1, "1k")
CELLS = (
    UNLOADED,
    HEADLINE,
    Cell(256, "1k"),
    Cell(1, "64k"),
    Cell(32, "64k"),
    Cell(256, "64k"),
    Cell(32, "1k", new_connections=True),
)


class Sample(msgspec.Struct, frozen=True):
    """One pair under one load in one round. `cpu_us` is CPU time of both proxies per request, in microseconds."""

    pair: str
    cell: Cell
    round: int
    load: Load
    cpu_us: float


class Memory(msgspec.Struct, frozen=True):
    """PSS of both proxies of a pair together after a load, in KiB."""

    pair: str
    cell: Cell
    pss_kib: int


class Figures(msgspec.Struct, frozen=True):
    """Medians over the rounds of one pair under one load; `errors` is their sum."""

    per_second: float
    cpu_us: float
    p50_us: float
    p99_us: float
    errors: int


def figures(samples: Iterable[Sample], cell: Cell, pair: str) -> Figures | None:
    """The medians of a pair under a load; None when it was not measured."""
    chosen = _select(samples, cell, pair)
    if not chosen:
        return None
    return Figures(
        per_second=statistics.median(sample.load.per_second for sample in chosen),
        cpu_us=statistics.median(sample.cpu_us for sample in chosen),
        p50_us=statistics.median(sample.load.p50_us for sample in chosen),
        p99_us=statistics.median(sample.load.p99_us for sample in chosen),
        errors=sum(sample.load.errors for sample in chosen),
    )


def ratio(
    samples: Sequence[Sample], cell: Cell, pair: str, peer: str, value: Callable[[Sample], float]
) -> float | None:
    """The median over the rounds of `pair`'s value / `peer`'s value in the same round.

    Both were measured within seconds of each other, so what disturbs the machine for longer than that cancels out.
    None when there is no round with both.
    """
    theirs = {sample.round: value(sample) for sample in _select(samples, cell, peer)}
    quotients = [
        value(sample) / theirs[sample.round] for sample in _select(samples, cell, pair) if theirs.get(sample.round)
    ]
    return statistics.median(quotients) if quotients else None


def memory_ratio(memory: Iterable[Memory], cell: Cell, pair: str, peer: str) -> float | None:
    """`pair`'s PSS / `peer`'s after the same load; None when either was not measured."""
    pss = {reading.pair: reading.pss_kib for reading in memory if reading.cell == cell}
    return pss[pair] / pss[peer] if pair in pss and pss.get(peer) else None


def headline(samples: Sequence[Sample], memory: Iterable[Memory]) -> dict[str, float | None]:
    """The four figures of the benchmark: the mesh against its peers at 32 connections and 1 KiB."""
    exact = {
        "cpu_vs_plain": ratio(samples, HEADLINE, "mesh", "plain", cpu),
        "cpu_vs_envoy": ratio(samples, HEADLINE, "mesh", "envoy", cpu),
        "p50_vs_envoy": ratio(samples, HEADLINE, "mesh", "envoy", p50),
        "pss_vs_envoy": memory_ratio(memory, HEADLINE, "mesh", "envoy"),
    }
    return {name: value if value is None else round(value, 3) for name, value in exact.items()}


def cpu(sample: Sample) -> float:
    """CPU per request of a sample, in microseconds."""
    return sample.cpu_us


def p50(sample: Sample) -> float:
    """Median latency of a sample, in microseconds."""
    return sample.load.p50_us


def _select(samples: Iterable[Sample], cell: Cell, pair: str) -> list[Sample]:
    return [sample for sample in samples if sample.cell == cell and sample.pair == pair]
