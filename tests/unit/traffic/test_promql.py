"""Flows by PromQL: promtool evaluates the queries for series that the tests make."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.traffic.exposition import LATENCY, RESPONSES
from nginx_mesh.traffic.flows import Counts, Flow
from nginx_mesh.traffic.measure import KINDS, TrafficQuery
from nginx_mesh.traffic.promql import can_exist, query, quoted, read

TARGET = 'job="m",instance="1"'
OWN = 'namespace="shop",pod="web-1",deployment="web"'
DESTINATION = 'dst_namespace="shop",dst_pod="db-1",dst_statefulset="db"'
RESPONSE = f'{RESPONSES}{{{TARGET},{OWN},{DESTINATION},upstream="shop/db:80",server="10.0.0.1:80",code="2xx"}}'
UP = f"up{{{TARGET}}}"
STARTED = f"process_start_time_seconds{{{TARGET}}}"
SIDECARS = {'{counter="sidecars"}': 1.0}
DEPLOYMENTS = TrafficQuery(KINDS["deployments"])


def gives(directory: Path, question: TrafficQuery, series: dict[str, str], wanted: dict[str, float]) -> None:
    """Fail unless the query gives these values 70 s after the first of scrapes that are 10 s apart."""
    expected = [{"labels": labels, "value": value} for labels, value in wanted.items()]
    test = {
        "interval": "10s",
        "input_series": [{"series": name, "values": written} for name, written in series.items()],
        "promql_expr_test": [{"expr": query(question, 30), "eval_time": "70s", "exp_samples": expected}],
    }
    file = directory / "test.json"
    file.write_text(json.dumps({"evaluation_interval": "10s", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("responses", "others", "added"),
    [
        pytest.param("0 10 20 30 40 50 60 70", {UP: "1x7"}, 30, id="what was added in three scrapes"),
        pytest.param("5x7", {UP: "1x7"}, 0, id="nothing"),
        pytest.param("_ _ _ _ _ 5 9 12", {UP: "1x7"}, 12, id="all of a series that began meanwhile"),
        pytest.param("_ _ _ _ _ 900 910 920", {UP: "_ _ _ _ _ 1 1 1"}, 20, id="what came after the first look"),
        pytest.param("_ _ _ _ _ 900 910 920", {UP: "1 1 1 1 0 1 1 1"}, 20, id="what came after a scrape that failed"),
        pytest.param(
            "_ _ _ _ _ 2 5 9", {UP: "_ _ _ _ _ 1 1 1", STARTED: "_ _ _ _ _ 45 45 45"}, 9, id="all since it started"
        ),
        pytest.param("100 110 120 130 140 3 5 7", {UP: "1x7"}, 7, id="what was counted after a restart"),
        pytest.param("0 9 9 9 9 9 stale", {UP: "1x7"}, None, id="nothing of a sidecar that has gone"),
    ],
)
def test_the_query_gives_the_increases_within_the_window(
    tmp_path: Path, responses: str, others: dict[str, str], added: float | None
) -> None:
    series = {RESPONSE: responses, "nginxplus_state_version": "1x7", **others}
    row = '{code="2xx",counter="responses",namespace="shop",deployment="web",dst_namespace="shop"}'
    gives(tmp_path, DEPLOYMENTS, series, SIDECARS if added is None else SIDECARS | {row: added})


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        (
            TrafficQuery(KINDS["pods"], "shop", "db-1"),
            {'namespace="shop",pod="web-1",dst_namespace="shop",dst_pod="db-1"'},
        ),
        (TrafficQuery(KINDS["pods"], "other", "db-1"), set()),
        (TrafficQuery(KINDS["namespaces"]), {'namespace="shop",dst_namespace="shop"'}),
        (TrafficQuery(KINDS["daemonsets"], "shop"), set()),
        (
            TrafficQuery(KINDS["deployments"], "shop", "web", edges=True),
            {'namespace="shop",deployment="web",dst_namespace="shop",dst_statefulset="db"'},
        ),
        (
            TrafficQuery(KINDS["statefulsets"], "shop", "db", edges=True),
            {'namespace="shop",deployment="web",dst_namespace="shop",dst_statefulset="db"'},
        ),
    ],
)
def test_the_query_selects_only_the_resources_in_question(
    tmp_path: Path, question: TrafficQuery, rows: set[str]
) -> None:
    bucket = RESPONSE.replace(RESPONSES, LATENCY).replace('code="2xx"', 'code="200",le="5"')
    series = {RESPONSE: "0+2x7", bucket: "0+1x7", UP: "1x7", "nginxplus_state_version": "1x7"}
    wanted = SIDECARS | {f'{{code="2xx",counter="responses",{row}}}': 6.0 for row in rows}
    gives(tmp_path, question, series, wanted | {f'{{le="5",counter="latency",{row}}}': 3.0 for row in rows})


def test_a_call_of_a_workload_to_itself_is_one_flow(tmp_path: Path) -> None:
    own = RESPONSE.replace("dst_pod", "dst_deployment").replace('"db-1"', '"web"')
    row = '{code="2xx",counter="responses",namespace="shop",deployment="web",dst_namespace="shop",dst_deployment="web"}'
    series = {own: "0+1x7", UP: "1x7", "nginxplus_state_version": "1x7"}
    gives(tmp_path, TrafficQuery(KINDS["deployments"], "shop", "web"), series, SIDECARS | {row: 3.0})


def test_rows_become_flows() -> None:
    ends = {"namespace": "shop", "deployment": "web", "dst_namespace": "shop", "dst_deployment": "db"}
    rows = [
        ({**ends, "counter": "responses", "code": "2xx"}, 8.0),
        ({**ends, "counter": "responses", "code": "5xx"}, 2.0),
        ({**ends, "counter": "latency", "le": "5"}, 9.0),
        ({**ends, "counter": "latency", "le": "+Inf"}, 10.0),
        ({**ends, "deployment": "idle", "counter": "responses", "code": "2xx"}, 0.0),
        ({**ends, "deployment": "\x1b[2Jweb", "counter": "responses", "code": "2xx"}, 7.0),
        ({"counter": "sidecars"}, 2.0),
    ]
    source, destination = {"namespace": "shop", "deployment": "web"}, {"namespace": "shop", "deployment": "db"}
    assert read(rows) == [Flow(source, destination, Counts(8, 2, {5.0: 9, math.inf: 10}, unanswered=2))]


def test_a_prometheus_without_sidecars_is_distinguished_from_a_mesh_without_traffic() -> None:
    assert read([({"counter": "sidecars"}, 3.0)]) == []
    assert read([]) is None


@pytest.mark.parametrize(
    "row",
    [
        ({"counter": "responses", "code": "2xx"}, -1.0),
        ({"counter": "responses", "code": "2xx"}, math.nan),
        ({"counter": "latency", "le": "much"}, 1.0),
        ({"counter": "latency"}, 1.0),
        ({"namespace": "shop"}, 1.0),
    ],
)
def test_a_row_that_the_query_does_not_give_is_an_error(row: tuple[dict[str, str], float]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read([row])


@pytest.mark.parametrize("name", ['web"} or up{x="', "web\n", "a\\", "ü", "x" * 300, "-", "../etc"])
def test_a_text_that_cannot_be_a_name_is_not_put_in_a_query(name: str) -> None:
    assert not can_exist(TrafficQuery(KINDS["pods"], "shop", name))
    assert not can_exist(TrafficQuery(KINDS["pods"], name, ""))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_quoted_text_cannot_end_its_string_literal(text: str) -> None:
    written = quoted(text)
    assert (written[0], written[-1]) == ('"', '"')
    assert "\n" not in written
    assert not written[1:-1].replace("\\\\", "").replace('\\"', "").count('"')
    assert json.loads(written) == text
