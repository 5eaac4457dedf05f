"""The results as tables for people (also valid Markdown) and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich import box
from rich.table import Table

from bench.load import Cell
from bench.stats import CELLS, HEADLINE, UNLOADED, Memory, Sample, cpu, figures, headline, memory_ratio, p50, ratio


class Run(msgspec.Struct, frozen=True):
    """Everything one run measured and under which conditions."""

    machine: dict[str, str]
    pairs: list[str]
    rounds: int
    seconds: int
    samples: list[Sample]
    memory: list[Memory]

    def headline(self) -> dict[str, float | None]:
        """The four figures of the last line."""
        return headline(self.samples, self.memory)

    def to_json(self) -> bytes:
        """The whole run, for a file."""
        return msgspec.json.format(msgspec.json.encode({"headline": self.headline(), "run": self}), indent=1)


def tables(run: Run) -> list[Table]:
    """What to print, in order."""
    return [_loads(run), _memory(run), *([_ratios(run)] if "mesh" in run.pairs else [])]


def _loads(run: Run) -> Table:
    table = new_table("Load", ("connections x body", "pair"), ("requests/s", "CPU µs", "p50 ms", "p99 ms", "errors"))
    for cell in CELLS:
        for pair in run.pairs:
            found = figures(run.samples, cell, pair)
            if found:
                table.add_row(
                    str(cell),
                    pair,
                    f"{found.per_second:.0f}",
                    f"{found.cpu_us:.1f}",
                    f"{found.p50_us / 1000:.3f}",
                    f"{found.p99_us / 1000:.2f}",
                    str(found.errors),
                )
    return table


def _memory(run: Run) -> Table:
    cells = list(dict.fromkeys(reading.cell for reading in run.memory))
    table = new_table("Memory per proxy (PSS, MiB)", ("pair",), tuple(f"after {cell}" for cell in cells))
    for pair in run.pairs:
        readings = {reading.cell: reading.pss_kib / 2 / 1024 for reading in run.memory if reading.pair == pair}
        table.add_row(pair, *(f"{readings[cell]:.1f}" if cell in readings else "-" for cell in cells))
    return table


def _ratios(run: Run) -> Table:
    peers = [pair for pair in run.pairs if pair != "mesh"]
    table = new_table("The mesh against its peers", ("figure",), tuple(f"mesh / {peer}" for peer in peers))

    def of(cell: Cell, value: str) -> tuple[str, ...]:
        chosen = cpu if value == "CPU" else p50
        ratios: Sequence[float | None] = [ratio(run.samples, cell, "mesh", peer, chosen) for peer in peers]
        return (f"{value} per request, {cell}" if value == "CPU" else f"{value}, {cell}", *map(_number, ratios))

    for cell in CELLS:
        table.add_row(*of(cell, "CPU"))
    table.add_row(*of(UNLOADED, "p50"))
    table.add_row(*of(HEADLINE, "p50"))
    pss = [memory_ratio(run.memory, HEADLINE, "mesh", peer) for peer in peers]
    table.add_row(f"PSS, {HEADLINE}", *map(_number, pss))
    return table


def new_table(title: str, names: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    """An empty table, valid Markdown when printed: columns of names, then right-aligned columns of numbers."""
    table = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for name in names:
        table.add_column(name, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
