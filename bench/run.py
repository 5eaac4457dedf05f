"""One run: every pair in its own topology, all up at once, measured in turn, round after round."""

from __future__ import annotations

import datetime
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import certs, load, usage
from bench.app import App
from bench.cores import Cores
from bench.load import Cell
from bench.pairs import Pair
from bench.process import ProcessDiedError, run_privileged
from bench.stats import HEADLINE, Memory, Sample
from bench.topology import Topology

Say = Callable[[str], None]
# From a root filesystem and a directory for its files.
PairFactory = Callable[[Path, Path], Pair]

_REDIRECT = "/usr/lib/nginx-mesh/redirect"
_START_SECONDS = 20.0
_MEMORY_CELLS = (HEADLINE, Cell(256, "64k"))


class Bed(NamedTuple):
    """A pair and its topology, the application behind it."""

    pair: Pair
    topology: Topology

    def sample(self, cell: Cell, round_: int, seconds: int) -> Sample:
        """Load the pair and account for what both proxies used meanwhile."""
        pids = self.pair.pids()
        before = usage.cpu_ns(pids)
        result = load.run(self.topology, cell, seconds)
        if self.pair.pids() != pids:
            raise ProcessDiedError(f"{self.pair.name}: a worker ended under {cell}:\n{self.pair.output_tail()}")
        used = usage.cpu_ns(pids) - before
        if not result.requests:
            raise load.NotWorkingError(f"{self.pair.name}: no request of {cell} was answered in {seconds} s")
        return Sample(self.pair.name, cell, round_, result, used / 1000 / result.requests)


@contextmanager
def workspace() -> Iterator[Path]:
    """A private directory for the run: configurations, keys, sockets, output."""
    with tempfile.TemporaryDirectory(prefix="nginx-mesh-bench-") as directory:
        yield Path(directory)


@contextmanager
def bed(root: Path, directory: Path, pair: Pair, cores: Cores) -> Iterator[Bed]:
    """A pair that is up and proved to work; everything it needed is gone afterwards."""
    with ExitStack() as stack:
        topology = stack.enter_context(Topology(pair.name, cores))
        for namespace in (topology.client, topology.server):
            run_privileged(root, namespace, _REDIRECT)
        place = Path(tempfile.mkdtemp(prefix=f"app-{pair.name}-", dir=directory))
        app = App(root, topology, place / "app")
        stack.callback(app.stop)
        app.start()
        stack.callback(pair.stop)
        pair.start(topology, certs.issue(datetime.datetime.now(datetime.UTC)))
        load.prove(pair, topology, _START_SECONDS)
        yield Bed(pair, topology)


@contextmanager
def all_up(root: Path, directory: Path, pairs: Sequence[Pair], cores: Cores) -> Iterator[list[Bed]]:
    """Every pair in a topology of its own."""
    with ExitStack() as stack:
        yield [stack.enter_context(bed(root, directory, pair, cores)) for pair in pairs]


def measure(beds: Sequence[Bed], cells: Sequence[Cell], rounds: int, seconds: int, say: Say) -> list[Sample]:
    """Samples of every pair under every load.

    The pairs take turns, so that all see the same disturbances of the machine. The rounds of one load follow each other
    after a second to warm up, so that no pair has closed its idle connections since the last.
    """
    samples: list[Sample] = []
    for cell in cells:
        for each in beds:
            load.run(each.topology, cell, 1)
        for round_ in range(1, rounds + 1):
            taken = [each.sample(cell, round_, seconds) for each in beds]
            samples.extend(taken)
            costs = ", ".join(f"{sample.pair} {sample.cpu_us:.0f} µs" for sample in taken)
            say(f"{cell}, round {round_}/{rounds}: {costs}")
    return samples


def weigh(
    root: Path, directory: Path, pairs: Iterable[PairFactory], cores: Cores, seconds: int, say: Say
) -> list[Memory]:
    """PSS of every pair after load.

    PSS divides shared pages among all who map them, so any other nginx from the same files would make a pair look
    smaller than it is: one pair runs after the other, from a copy of the root filesystem that nobody else uses.
    """
    copy = directory / "root"
    subprocess.run(("cp", "--archive", str(root), str(copy)), check=True)
    readings: list[Memory] = []
    for make in pairs:
        pair = make(copy, directory)
        with bed(root, directory, pair, cores) as each:
            for cell in _MEMORY_CELLS:
                load.run(each.topology, cell, seconds)
                readings.append(Memory(pair.name, cell, usage.pss_kib(pair.pids())))
            say(f"memory of {pair.name}: {readings[-2].pss_kib / 2048:.1f} MiB per proxy")
    return readings
