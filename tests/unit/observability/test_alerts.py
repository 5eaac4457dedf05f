"""Alerts fire at their threshold and after their duration, and not before."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ALERTS = Path(__file__).parents[3] / "deploy/observability/prometheus/alerts.yaml"
OWN = 'namespace="shop",pod="web-1"'
TO = 'dst_namespace="shop",dst_service="db"'
CALLED = f"{OWN},{TO}"


def responses(good: int, bad: int) -> dict[str, str]:
    """So many answers a minute."""
    name = f"nginxplus_upstream_server_responses{{{CALLED}"
    return {f'{name},code="2xx"}}': f"0+{good}x200", f'{name},code="5xx"}}': f"0+{bad}x200"}


def latencies(below: int, above: int) -> dict[str, str]:
    """Requests a minute below and above a second."""
    name = f'nginxplus_upstream_server_response_latency_ms_bucket{{{CALLED},code="200"'
    within, all_ = f"0+{below}x200", f"0+{below + above}x200"
    buckets = {f'{name},le="1000"}}': within, f'{name},le="2000"}}': all_, f'{name},le="+Inf"}}': all_}
    return {**responses(below + above, 0), **buckets}


def connections(tried: int, failed: int) -> dict[str, str]:
    name = "nginxplus_stream_upstream_server_"
    return {
        f"{name}connections{{{CALLED}}}": f"0+{tried}x200",
        f"{name}fails{{{CALLED}}}": f"0+{failed}x200",
    }


def handshakes(ok: int, failed: int) -> dict[str, str]:
    name = f'nginxplus_tls_handshakes_total{{{OWN},side="server"'
    return {f'{name},result="ok"}}': f"0+{ok}x200", f'{name},result="failed"}}': f"0+{failed}x200"}


class Case(NamedTuple):
    """Series with a value a minute; the alert fires at `fires` minutes, not at `before`, and never for `quiet`."""

    alert: str
    labels: str
    series: dict[str, str]
    before: int
    fires: int
    quiet: dict[str, str]


BREAKER = f'nginxplus_circuit_breaker_state{{{OWN},upstream="shop/db:80",breaker="shop/db"}}'
LIMITED = f'nginxplus_rate_limited_total{{{OWN},ratelimit="shop/slow"}}'
DENIED = f"nginxplus_access_denied_total{{{OWN}}}"
EXPIRY = f"nginxplus_certificate_expiry_timestamp_seconds{{{OWN}}}"
VERSION = f"nginxplus_state_version{{{OWN}}}"
DROPPED = f"nginxplus_connections_dropped{{{OWN}}}"
LOST = f"nginxplus_metrics_dropped_total{{{OWN}}}"
UP = f'up{{job="nginx-mesh-sidecars",{OWN}}}'
OTHER_JOB = f'up{{job="other",{OWN}}}'

CASES = [
    Case("MeshErrorRate", f'{TO},severity="critical"', responses(900, 100), 4, 8, responses(1000, 40)),
    Case("MeshLatency", f'{TO},severity="warning"', latencies(900, 100), 9, 13, latencies(1000, 1)),
    Case("MeshConnectFailures", f'{TO},severity="critical"', connections(100, 10), 4, 8, connections(100, 1)),
    Case(
        "MeshCircuitOpen",
        f'{OWN},upstream="shop/db:80",breaker="shop/db",severity="warning"',
        {BREAKER: "1x200"},
        0,
        2,
        {BREAKER: "0x50 2x100"},
    ),
    Case(
        "MeshDeniedSpike",
        f'{OWN},severity="warning"',
        {DENIED: "0+6x100 600+600x100"},
        103,
        112,
        {DENIED: "0+600x200"},
    ),
    Case(
        "MeshRateLimited",
        f'{OWN},ratelimit="shop/slow",severity="info"',
        {LIMITED: "0+120x200"},
        9,
        13,
        {LIMITED: "0+30x200"},
    ),
    Case(
        "MeshSidecarDown",
        f'{OWN},job="nginx-mesh-sidecars",severity="critical"',
        {UP: "1x20 0x180"},
        22,
        24,
        {UP: "1 0 1 1 0x1 1x190", OTHER_JOB: "0x200"},
    ),
    Case("MeshSidecarWithoutState", f'{OWN},severity="critical"', {VERSION: "0x200"}, 1, 3, {VERSION: "0 0 7x190"}),
    Case(
        "MeshCertificateExpiry",
        f'{OWN},severity="critical"',
        {EXPIRY: "3600x200"},
        45,
        47,
        {EXPIRY: "3600x29 5400x29 7200x29 9000x29 10800x29 12600x29 14400x29"},
    ),
    Case("MeshHandshakesFail", f'{OWN},side="server",severity="warning"', handshakes(80, 20), 4, 8, handshakes(100, 5)),
    Case("MeshConnectionsDropped", f'{OWN},severity="warning"', {DROPPED: "0x20 0+1x180"}, 20, 24, {DROPPED: "7x200"}),
    Case("MeshMetricsDropped", f'{OWN},severity="info"', {LOST: "0x20 5x180"}, 20, 22, {LOST: "5x200"}),
]


def run(directory: Path, series: dict[str, str], **expected: Any) -> None:
    """Fail unless what is expected of the rules holds for the series."""
    test = {"interval": "1m", "input_series": [{"series": name, "values": text} for name, text in series.items()]}
    file = directory / "test.json"
    file.write_text(
        json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [{**test, **expected}]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def firing(minute: int, *alerts: str) -> dict[str, Any]:
    """What fires then, and nothing else."""
    samples = [{"labels": f'ALERTS{{alertstate="firing",{alert}}}', "value": 1} for alert in alerts]
    return {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{minute}m", "exp_samples": samples}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_after_its_duration(tmp_path: Path, case: Case) -> None:
    alert = f'alertname="{case.alert}",{case.labels}'
    run(tmp_path, case.series, promql_expr_test=[firing(case.before), firing(case.fires, alert)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_no_alert_fires_below_its_threshold(tmp_path: Path, case: Case) -> None:
    run(tmp_path, case.quiet, promql_expr_test=[firing(minute) for minute in range(1, 195, 6)])


def test_every_alert_is_tested_and_has_a_summary_and_a_description() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert sorted(rule["alert"] for rule in rules) == sorted(case.alert for case in CASES)
    assert all(set(rule["annotations"]) == {"summary", "description"} for rule in rules)


def test_an_alert_has_a_severity_and_names_what_it_is_about(tmp_path: Path) -> None:
    wanted = {
        "exp_labels": {"dst_namespace": "shop", "dst_service": "db", "severity": "critical"},
        "exp_annotations": {
            "summary": "10% of requests to shop/db fail",
            "description": "Answers of 5xx as callers' sidecars saw them, after retries. `nginx-meshctl top` shows"
            " whose they are.",
        },
    }
    expected = {"eval_time": "20m", "alertname": "MeshErrorRate", "exp_alerts": [wanted]}
    run(tmp_path, responses(900, 100), alert_rule_test=[expected])
