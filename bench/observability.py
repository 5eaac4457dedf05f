"""`python -m bench.observability`: what metrics and traces cost. The last line is one JSON object.

Four pairs of the same sidecars under the same policies: two that count nothing, which tell what a difference between
equals looks like; one that counts and is scraped in every turn; one that also samples 1 % of traces and reports them.
"""

from __future__ import annotations

import re
import statistics
import threading
from collections.abc import Sequence

import click
import msgspec
from rich.table import Table

from bench import cores, load, run
from bench.command import prepare, say, show
from bench.pairs.mesh import Features, MeshPair
from bench.report import new_table
from bench.stats import HEADLINE, Sample, figures

OFF, AGAIN, METRICS, TRACES = "off", "again", "metrics", "traces"
SAMPLED = 0.01
FEATURES = {
    OFF: Features(metrics=False),
    METRICS: Features(),
    TRACES: Features(sampler_ratio=SAMPLED),
    AGAIN: Features(metrics=False),
}
_TITLES = {
    OFF: "neither",
    METRICS: "metrics",
    TRACES: f"metrics, {SAMPLED:.0%} of traces",
    AGAIN: "neither, another pair",
}


def measure(beds: Sequence[tuple[run.Bed, MeshPair]], rounds: int, seconds: int) -> list[Sample]:
    """Samples of every pair, in turn forwards and backwards. NotWorkingError as of `check`."""
    samples: list[Sample] = []
    for each, _ in beds:
        load.run(each.topology, HEADLINE, 1)
    for round_ in range(1, rounds + 1):
        taken = [_sample(each, pair, round_, seconds) for each, pair in (beds if round_ % 2 else reversed(beds))]
        samples += taken
        say(f"round {round_}/{rounds}: " + ", ".join(f"{sample.pair} {sample.cpu_us:.1f} µs" for sample in taken))
    for name, pair in ((pair.name, pair) for _, pair in beds):
        requests = sum(sample.load.requests for sample in samples if sample.pair == name)
        check(name, requests, counted=counted(pair.metrics()[1]), reports=pair.reports())
    return samples


def counted(metrics: str) -> int:
    """The requests that a sidecar says it received."""
    return sum(map(int, re.findall(r"^nginxplus_http_requests_total{.*} (\d+)$", metrics, re.MULTILINE)))


def check(name: str, requests: int, *, counted: int, reports: int) -> None:
    """NotWorkingError: a pair that is to count or to trace did not, or another did."""
    if counted < requests if FEATURES[name].metrics else counted > 0:
        raise load.NotWorkingError(f"{name}: it counted {counted} of {requests} requests")
    expected = 2 * requests * (FEATURES[name].sampler_ratio or 0)
    if not 0.5 * expected <= reports <= 2 * expected:
        raise load.NotWorkingError(f"{name}: {reports} reports of {requests} requests, not about {expected:.0f}")


def quotients(samples: Sequence[Sample], name: str) -> list[float]:
    """A pair's CPU per request in each round, by the mean of both that do neither; for AGAIN, by that of OFF."""
    by_round: dict[int, dict[str, float]] = {}
    for sample in samples:
        by_round.setdefault(sample.round, {})[sample.pair] = sample.cpu_us
    peers = [OFF] if name == AGAIN else [OFF, AGAIN]
    return [costs[name] / statistics.fmean(costs[peer] for peer in peers) for costs in by_round.values()]


def headline(samples: Sequence[Sample]) -> dict[str, float]:
    """The medians of the quotients."""
    return {
        f"cpu_{name}_vs_off": round(statistics.median(quotients(samples, name)), 3) for name in (METRICS, TRACES, AGAIN)
    }


def table(samples: Sequence[Sample]) -> Table:
    """Medians; of the quotients the quartiles as well."""
    found = new_table(f"Metrics and traces, {HEADLINE}", ("pair",), ("CPU µs", "p50 ms", "CPU / neither", "quartiles"))
    for name, title in _TITLES.items():
        of = figures(samples, HEADLINE, name)
        assert of is not None
        row = [title, f"{of.cpu_us:.1f}", f"{of.p50_us / 1000:.3f}"]
        if name != OFF:
            low, middle, high = statistics.quantiles(quotients(samples, name), n=4, method="inclusive")
            row += [f"{middle:.3f}", f"{low:.2f} … {high:.2f}"]
        found.add_row(*row)
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=40, show_default=True, help="How often each pair has its turn.")
@click.option("--seconds", default=1, show_default=True, help="How long a turn lasts.")
def main(rounds: int, seconds: int) -> None:
    """Measure a pair of sidecars that counts and traces against one that does neither, in one run."""
    root, where = prepare(), cores.split(cores.mine())
    with run.workspace() as directory:
        pairs = [MeshPair(root, directory, name, features) for name, features in FEATURES.items()]
        with run.all_up(root, directory, pairs, where) as beds:
            samples = measure(list(zip(beds, pairs, strict=True)), rounds, seconds)
    show([table(samples)])
    click.echo(msgspec.json.encode(headline(samples)).decode())


def _sample(each: run.Bed, pair: MeshPair, round_: int, seconds: int) -> Sample:
    scrape = threading.Timer(seconds / 2, pair.metrics)
    if FEATURES[pair.name].metrics:
        scrape.start()
    sample = each.sample(HEADLINE, round_, seconds)
    scrape.cancel()
    return sample


if __name__ == "__main__":
    main()
