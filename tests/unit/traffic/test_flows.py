"""Flows between workloads, and their quantiles."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.traffic.exposition import BREAKER, LATENCY, MTLS, RESPONSES, Exposition, ExpositionError, Series, read
from nginx_mesh.traffic.flows import Counts, Flow, flows
from nginx_mesh.traffic.measure import KINDS, Measured, Reference, TrafficQuery, measure

BOUNDS = [1.0, 2, 5, 10, 20, 50, 100, math.inf]


def series(name: str, **labels: str) -> Series:
    return name, tuple(sorted(labels.items()))


def flow(source: str, destination: str, success: int, failure: int = 0, served_by: str = "deployment") -> Flow:
    def end(name: str, kind: str) -> dict[str, str]:
        namespace, _, short = name.partition("/")
        return {"namespace": namespace, "pod": f"{short}-1", kind: short}

    return Flow(
        end(source, "deployment"),
        end(destination, served_by),
        Counts(success, failure),
    )


def test_an_exposition_is_read() -> None:
    text = f"""# HELP {RESPONSES} Responses of an endpoint by class.
# TYPE {RESPONSES} counter
{RESPONSES}{{code="2xx",dst_pod="b",pod="a \\"x\\\\"}} 5
# TYPE nginxplus_upstream_server_response_latency_ms histogram
{LATENCY}{{code="200",le="1",pod="a"}} 3
{LATENCY}{{code="200",le="+Inf",pod="a"}} 4
nginxplus_upstream_server_response_latency_ms_sum{{code="200",pod="a"}} 12
# TYPE {MTLS} counter
{MTLS}{{pod="a"}} 5
{BREAKER}{{breaker="shop/web",pod="a",upstream="shop/web:80"}} 1
nginxplus_http_requests_total 9
process_start_time_seconds 1700000000
"""
    counters = {
        series(RESPONSES, code="2xx", dst_pod="b", pod='a "x\\'): 5,
        series(LATENCY, code="200", le="1", pod="a"): 3,
        series(LATENCY, code="200", le="+Inf", pod="a"): 4,
        series(MTLS, pod="a"): 5,
    }
    breakers = {series(BREAKER, breaker="shop/web", pod="a", upstream="shop/web:80"): 1}
    assert read(text) == Exposition(counters, 1_700_000_000, breakers)


@given(st.text(max_size=200))
def test_a_malformed_exposition_is_an_error_or_has_no_counters(text: str) -> None:
    with suppress(ExpositionError):
        assert read(text) == Exposition({})


def test_all_series_between_two_pods_are_one_flow() -> None:
    ends = {"pod": "a", "namespace": "n", "dst_pod": "b", "dst_namespace": "m"}
    (found,) = flows(
        [
            (series(RESPONSES, code="2xx", server="1", upstream="u", **ends), 5),
            (series(RESPONSES, code="1xx", server="2", upstream="u", **ends), 1),
            (series(RESPONSES, code="4xx", server="1", upstream="u", **ends), 2),
            (series(RESPONSES, code="5xx", server="1", upstream="u", **ends), 1),
            (series(LATENCY, code="200", le="10", server="1", upstream="u", **ends), 6),
            (series(LATENCY, code="404", le="10", server="1", upstream="u", **ends), 2),
            (series(LATENCY, code="404", le="+Inf", server="1", upstream="u", **ends), 3),
            (series(MTLS, server="1", upstream="u", **ends), 7),
        ]
    )
    assert found == Flow(
        {"pod": "a", "namespace": "n"}, {"pod": "b", "namespace": "m"}, Counts(6, 3, {10: 8, math.inf: 3}, 7, 1)
    )


def test_without_requests_there_is_no_quantile() -> None:
    assert Counts().quantile(0.5) is None


def test_quantiles_are_interpolated_linearly_within_a_bucket() -> None:
    counts = Counts(latency={10: 50, 20: 100, math.inf: 100})
    assert counts.quantile(0.5) == 10
    assert counts.quantile(0.75) == 15
    assert counts.quantile(0.25) == 5
    assert Counts(latency={10: 0, math.inf: 4}).quantile(0.5) == 10


@given(st.lists(st.floats(0.001, 200), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_in_the_bucket_of_the_true_one(times: list[float], q: float) -> None:
    counts = Counts(latency={bound: sum(time <= bound for time in times) for bound in BOUNDS})
    true = sorted(times)[math.ceil(q * len(times)) - 1]
    upper = next(bound for bound in BOUNDS if true <= bound)
    lower = max((bound for bound in BOUNDS if bound < true), default=0.0)
    found = counts.quantile(q)
    assert found is not None
    assert lower <= found <= min(upper, BOUNDS[-2])


def test_totals_are_by_resource_and_direction() -> None:
    found = [flow("n/a", "n/b", 5), flow("n/a", "m/c", 2, 1), flow("m/c", "n/b", 3)]
    a, b = Reference("Deployment", "n", "a"), Reference("Deployment", "n", "b")
    assert measure(found, TrafficQuery(KINDS["deployments"], "n")) == [
        Measured(a, "to", None, Counts(7, 1)),
        Measured(b, "from", None, Counts(8)),
    ]
    assert measure(found, TrafficQuery(KINDS["deployments"], "n", "b")) == [Measured(b, "from", None, Counts(8))]
    assert measure(found, TrafficQuery(KINDS["statefulsets"])) == []
    assert measure(found, TrafficQuery(KINDS["namespaces"], name="m")) == [
        Measured(Reference("Namespace", "", "m"), "from", None, Counts(2, 1)),
        Measured(Reference("Namespace", "", "m"), "to", None, Counts(3)),
    ]


def test_edges_are_by_peer_and_peers_of_a_workload_are_of_every_kind() -> None:
    found = [flow("n/a", "n/b", 5), flow("n/a", "n/db", 2, served_by="statefulset"), flow("m/x", "n/a", 1, 1)]
    a = Reference("Deployment", "n", "a")
    assert measure(found, TrafficQuery(KINDS["deployments"], "n", "a", edges=True)) == [
        Measured(a, "from", Reference("Deployment", "m", "x"), Counts(1, 1)),
        Measured(a, "to", Reference("Deployment", "n", "b"), Counts(5)),
        Measured(a, "to", Reference("StatefulSet", "n", "db"), Counts(2)),
    ]
    pod = Reference("Pod", "n", "b-1")
    assert measure(found, TrafficQuery(KINDS["pods"], "n", "b-1", edges=True)) == [
        Measured(pod, "from", Reference("Pod", "n", "a-1"), Counts(5))
    ]


@pytest.mark.parametrize("plural", list(KINDS))
@given(st.lists(st.tuples(*[st.sampled_from(["n/a", "n/b", "m/a", "m/c"])] * 2, st.integers(1, 9), st.integers(0, 9))))
def test_edges_of_a_resource_add_up_to_its_totals(plural: str, calls: list[tuple[str, str, int, int]]) -> None:
    kind = KINDS[plural]
    found = [flow(*call) for call in calls]
    for total in measure(found, TrafficQuery(kind)):
        mine = [
            edge.counts
            for edge in measure(found, TrafficQuery(kind, total.resource.namespace, total.resource.name, edges=True))
            if edge.direction == total.direction
        ]
        assert sum(counts.success for counts in mine) == total.counts.success
        assert sum(counts.failure for counts in mine) == total.counts.failure
