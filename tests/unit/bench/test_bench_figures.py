"""From samples to the figures that are quoted."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import Cell, Load
from bench.report import Run
from bench.stats import HEADLINE, Memory, Sample, cpu, figures, headline, memory_ratio, p50, ratio

OTHER = Cell(1, "64k")
PAIRS = ("plain", "envoy", "mesh")
positive = st.floats(min_value=0.1, max_value=1e6)


def sample(pair: str, round_: int, *, cpu_us: float = 1.0, p50_us: int = 1, cell: Cell = HEADLINE) -> Sample:
    load = Load(requests=1000, duration_us=500_000, bytes=1, p50_us=p50_us, p90_us=1, p99_us=7, errors=2)
    return Sample(pair, cell, round_, load, cpu_us)


@given(st.lists(positive, min_size=1, max_size=9))
def test_figures_are_medians_over_the_rounds_and_errors_their_sum(costs: list[float]) -> None:
    samples = [sample("mesh", number, cpu_us=cost) for number, cost in enumerate(costs)]
    found = figures(samples, HEADLINE, "mesh")
    assert found is not None
    assert found.cpu_us == statistics.median(costs)
    assert found.errors == 2 * len(costs)
    assert (found.per_second, found.p99_us) == (2000, 7)


def test_figures_leave_other_pairs_and_loads_out() -> None:
    samples = [sample("mesh", 1, cpu_us=5), sample("plain", 1, cpu_us=9), sample("mesh", 1, cpu_us=7, cell=OTHER)]
    found = figures(samples, HEADLINE, "mesh")
    assert found is not None
    assert found.cpu_us == 5
    assert figures(samples, HEADLINE, "envoy") is None


@given(st.lists(st.tuples(positive, st.floats(min_value=1, max_value=100)), min_size=1, max_size=9), positive)
def test_a_ratio_is_blind_to_rounds_that_were_slow_for_everybody(
    rounds: list[tuple[float, float]], factor: float
) -> None:
    """The pairs of one round are compared with each other, whatever another round had to suffer."""
    samples = []
    for number, (cost, disturbance) in enumerate(rounds):
        samples.append(sample("plain", number, cpu_us=cost * disturbance))
        samples.append(sample("mesh", number, cpu_us=cost * disturbance * factor))
    assert ratio(samples, HEADLINE, "mesh", "plain", cpu) == pytest.approx(factor)


def test_a_ratio_needs_a_round_with_both() -> None:
    samples = [sample("mesh", 1), sample("plain", 2)]
    assert ratio(samples, HEADLINE, "mesh", "plain", cpu) is None


def test_the_headline_is_mesh_over_peer_at_32_connections_and_1_kib() -> None:
    costs = {"plain": 40.0, "envoy": 100.0, "mesh": 50.0}
    latencies = {"plain": 900, "envoy": 2000, "mesh": 1000}
    samples = [sample(pair, 1, cpu_us=costs[pair], p50_us=latencies[pair]) for pair in PAIRS]
    samples += [sample(pair, 1, cpu_us=1, cell=OTHER) for pair in PAIRS]
    memory = [Memory("mesh", HEADLINE, 20_000), Memory("envoy", HEADLINE, 80_000), Memory("envoy", OTHER, 1)]
    expected = {"cpu_vs_plain": 1.25, "cpu_vs_envoy": 0.5, "p50_vs_envoy": 0.5, "pss_vs_envoy": 0.25}
    assert headline(samples, memory) == expected
    assert ratio(samples, HEADLINE, "mesh", "plain", p50) == pytest.approx(1.111, abs=0.001)


def test_what_was_not_measured_is_null_in_the_headline_not_a_number() -> None:
    samples = [sample("plain", 1), sample("envoy", 1)]
    assert set(headline(samples, []).values()) == {None}
    assert memory_ratio([Memory("mesh", HEADLINE, 1)], HEADLINE, "mesh", "envoy") is None


def test_the_json_file_holds_the_headline_and_every_sample() -> None:
    samples = [sample(pair, 1) for pair in PAIRS]
    run = Run({"cores": "2"}, list(PAIRS), 1, 3, samples, [Memory("mesh", HEADLINE, 5)])
    written = json.loads(run.to_json())
    assert written["headline"]["cpu_vs_plain"] == 1
    assert [taken["pair"] for taken in written["run"]["samples"]] == list(PAIRS)
    assert written["run"]["samples"][0]["load"]["p99_us"] == 7
    assert written["run"]["memory"][0]["pss_kib"] == 5
