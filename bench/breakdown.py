"""Where the mesh spends what plain nginx does not: features taken away one by one, and a profile by component."""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from bench import load
from bench.cores import Cores
from bench.pairs import Pair
from bench.pairs.mesh import Features, MeshPair
from bench.pairs.plain import PlainPair
from bench.report import new_table
from bench.run import Bed, Say, all_up, measure
from bench.stats import HEADLINE, Sample, cpu, figures, ratio

_ROUNDS = 15
_SECONDS = 1
_PROFILES = 5
_PROFILE_SECONDS = 2
_FREQUENCY_HZ = 1997


class Step(NamedTuple):
    """A mesh pair with fewer features than the step before it."""

    name: str
    title: str
    features: Features


_BALANCED_SIMPLY = Features(routing=False, limit=False, rules=False, least_time=False)
STEPS = (
    Step("mesh", "everything on", Features()),
    Step("mesh-1", "without the split and the circuit breaker", Features(routing=False)),
    Step("mesh-2", "… and the rate limit", Features(routing=False, limit=False)),
    Step("mesh-3", "… and the access rule", Features(routing=False, limit=False, rules=False)),
    Step("mesh-4", "… and least_time (round_robin)", _BALANCED_SIMPLY),
    Step("mesh-5", "… and metrics", _BALANCED_SIMPLY._replace(metrics=False)),
)

Profile = dict[str, float]

# By the start of the object's name in perf's report; the first that fits.
_COMPONENTS = (
    ("[JIT]", "Lua"),
    ("[kernel", "kernel"),
    ("[", "kernel"),
    ("libluajit", "Lua"),
    ("ngx_http_lua", "Lua"),
    ("ndk_", "Lua"),
    ("//anon", "Lua"),
    ("anon", "Lua"),
    ("perf-", "Lua"),
    ("ngx_http_mesh", "our C module"),
    ("ngx_stream", "nginx"),
    ("nginx", "nginx"),
    ("libcrypto", "TLS"),
    ("libssl", "TLS"),
    ("libpcre", "regular expressions"),
    ("libc.", "libc"),
)


def run(root: Path, directory: Path, cores: Cores, say: Say) -> list[Table]:
    """Measure and give the tables to print."""
    pairs: list[Pair] = [
        PlainPair(root, directory),
        *(MeshPair(root, directory, step.name, step.features) for step in STEPS),
    ]
    with all_up(root, directory, pairs, cores) as beds:
        samples = measure(beds, [HEADLINE], _ROUNDS, _SECONDS, say)
        tables = [steps_table(samples)]
        if shutil.which("perf") is None:
            say("no profile: perf is not installed (apt-get install linux-perf)")
        else:
            plain, mesh = beds[0], beds[1]
            taken = [(_shares(plain, directory), _shares(mesh, directory)) for _ in range(_PROFILES)]
            shares = [medians([pair[which] for pair in taken]) for which in (0, 1)]
            tables.append(profile_table(_scaled(shares[0], samples, "plain"), _scaled(shares[1], samples, "mesh")))
    return tables


def steps_table(samples: Sequence[Sample]) -> Table:
    """CPU per request after each step, and what the step saved (median of the differences within a round)."""
    table = new_table(f"CPU per request of both hops, {HEADLINE}", ("pair",), ("CPU µs", "saved µs", "vs plain"))
    plain = figures(samples, HEADLINE, "plain")
    assert plain is not None
    previous: str | None = None
    for step in STEPS:
        found = figures(samples, HEADLINE, step.name)
        against = ratio(samples, HEADLINE, step.name, "plain", cpu)
        assert found is not None
        assert against is not None
        saved = "" if previous is None else f"{_difference(samples, previous, step.name):.1f}"
        table.add_row(step.title, f"{found.cpu_us:.1f}", saved, f"{against:.2f}")
        previous = step.name
    table.add_row("plain nginx", f"{plain.cpu_us:.1f}", f"{_difference(samples, STEPS[-1].name, 'plain'):.1f}", "1.00")
    return table


def medians(profiles: Sequence[Profile]) -> Profile:
    """The median of each component."""
    components = {component for profile in profiles for component in profile}
    return {
        component: statistics.median(profile.get(component, 0.0) for profile in profiles) for component in components
    }


def profile_table(plain: Profile, mesh: Profile) -> Table:
    """CPU per request by component, and the difference between the mesh and plain nginx."""
    table = new_table(f"Where the time goes, {HEADLINE} (sampled)", ("component",), ("plain µs", "mesh µs", "more µs"))
    components = sorted({*plain, *mesh}, key=lambda component: plain.get(component, 0) - mesh.get(component, 0))
    for component in components:
        ours, theirs = mesh.get(component, 0.0), plain.get(component, 0.0)
        table.add_row(component, f"{theirs:.1f}", f"{ours:.1f}", f"{ours - theirs:+.1f}")
    ours, theirs = sum(mesh.values()), sum(plain.values())
    table.add_row("all", f"{theirs:.1f}", f"{ours:.1f}", f"{ours - theirs:+.1f}")
    return table


def parse_report(report: str) -> Profile:
    """Shares (0…1) by component of a `perf report --sort dso -t '|'`."""
    shares: Profile = {}
    for line in report.splitlines():
        share, separator, name = line.partition("|")
        if separator and not line.lstrip().startswith("#"):
            component = _component(name.strip())
            shares[component] = shares.get(component, 0.0) + float(share.strip().rstrip("%")) / 100
    return shares


def _component(name: str) -> str:
    return next((component for start, component in _COMPONENTS if name.startswith(start)), "other")


def _difference(samples: Iterable[Sample], minuend: str, subtrahend: str) -> float:
    by_round: dict[int, dict[str, float]] = {}
    for sample in samples:
        by_round.setdefault(sample.round, {})[sample.pair] = sample.cpu_us
    return statistics.median(costs[minuend] - costs[subtrahend] for costs in by_round.values())


def _scaled(shares: Profile, samples: Sequence[Sample], pair: str) -> Profile:
    """Microseconds per request from shares: what the profile says of proportions, what the rounds say of the whole."""
    found = figures(samples, HEADLINE, pair)
    assert found is not None
    whole = sum(shares.values())
    return {component: share / whole * found.cpu_us for component, share in shares.items()}


def _shares(each: Bed, directory: Path) -> Profile:
    """Shares of CPU time by component, sampled while the pair is under load."""
    data = directory / f"{each.pair.name}.perf"
    pids = ",".join(map(str, each.pair.pids()))
    # cpu-clock: virtual machines often have no hardware counters.
    command = ("perf", "record", "-q", "-o", str(data), "-F", str(_FREQUENCY_HZ), "-e", "cpu-clock", "-p", pids)
    recorder = subprocess.Popen(
        (*command, "--", "sleep", str(_PROFILE_SECONDS)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        load.run(each.topology, HEADLINE, _PROFILE_SECONDS)
    finally:
        recorder.wait()
    report = subprocess.run(
        ("perf", "report", "-i", str(data), "--stdio", "-q", "--no-children", "--sort", "dso", "-t", "|"),
        capture_output=True,
        text=True,
        check=True,
    )
    return parse_report(report.stdout)
