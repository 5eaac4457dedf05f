"""What metrics and traces cost: that each pair does what it is called, and what is said of it."""

from __future__ import annotations

import datetime
import os
import socket
from pathlib import Path

import pytest

from bench import certs, observability
from bench.load import Load, NotWorkingError
from bench.objects import states
from bench.observability import AGAIN, FEATURES, METRICS, OFF, TRACES, check, counted
from bench.pairs import mesh
from bench.reports import ReportSink
from bench.stats import HEADLINE, Sample
from nginx_mesh.protocol.state import Settings
from tests.eventually import wait_until

ISSUED = certs.issue(datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))
SCRAPED = """# TYPE nginxplus_http_requests_total counter
nginxplus_http_requests_total{pod="server-0",mtls="true"} 1200
nginxplus_http_requests_total{pod="server-0",mtls="false"} 3
nginxplus_http_responses_total{pod="server-0",code="2xx"} 7
"""


def test_only_the_pair_that_traces_samples_and_only_a_hundredth() -> None:
    ratios: dict[str, set[float | None]] = {}
    for name, features in FEATURES.items():
        found = states(mesh.objects(features), ISSUED, sampler_ratio=features.sampler_ratio)
        for state in found:
            settings = state["settings"]
            assert isinstance(settings, Settings)
            ratios.setdefault(name, set()).add(settings.sampler_ratio)
    assert ratios == {OFF: {None}, AGAIN: {None}, METRICS: {None}, TRACES: {0.01}}


def test_requests_that_a_sidecar_received_are_read_from_its_metrics() -> None:
    assert counted(SCRAPED) == 1203
    assert counted("") == 0


@pytest.mark.parametrize(
    ("name", "counted", "reports"),
    [(OFF, 0, 0), (AGAIN, 0, 0), (METRICS, 5000, 0), (METRICS, 5100, 0), (TRACES, 5000, 80), (TRACES, 5000, 120)],
)
def test_a_pair_that_does_what_it_is_called_passes(name: str, counted: int, reports: int) -> None:
    check(name, 5000, counted=counted, reports=reports)


@pytest.mark.parametrize(
    ("name", "counted", "reports"),
    [(OFF, 1, 0), (OFF, 0, 1), (METRICS, 4999, 0), (METRICS, 5000, 1), (TRACES, 0, 100), (TRACES, 5000, 0)],
)
def test_a_pair_that_does_not_is_an_error_not_a_cheap_one(name: str, counted: int, reports: int) -> None:
    with pytest.raises(NotWorkingError, match=name):
        check(name, 5000, counted=counted, reports=reports)


def test_the_last_line_compares_with_both_pairs_that_do_neither_and_these_with_each_other() -> None:
    load = Load(requests=1, duration_us=1, bytes=1, p50_us=1, p90_us=1, p99_us=1, errors=0)
    cost = {OFF: 51.0, AGAIN: 49.0, METRICS: 51.0, TRACES: 52.0}
    slow = (1, 5, 3)
    samples = [Sample(name, HEADLINE, at, load, cost[name] * slow[at]) for at in range(3) for name in FEATURES]
    assert observability.headline(samples) == {
        "cpu_metrics_vs_off": 1.02,
        "cpu_traces_vs_off": 1.04,
        "cpu_again_vs_off": 0.961,
    }
    columns = [list(column.cells) for column in observability.table(samples).columns]
    assert columns[0][1:3] == ["metrics", "metrics, 1% of traces"]
    assert columns[3] == ["", "1.020", "1.040", "0.961"]
    assert columns[4][2] == "1.04 … 1.04"


def test_a_sink_counts_datagrams_and_ends(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the socket is given to another user: needs root")
    sink = ReportSink(tmp_path / "report.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sidecar:
        for _ in range(3):
            sidecar.sendto(b"{}", str(tmp_path / "report.sock"))
        wait_until(lambda: sink.taken >= 3, lambda: f"three datagrams; there are {sink.taken}", 20)
        sink.close()
        assert sink.taken == 3
