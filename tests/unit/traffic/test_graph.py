"""The graph of traffic, and the traffic of workloads over time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.traffic.connections import Connections, tcp_flows
from nginx_mesh.traffic.exposition import (
    CONNECTIONS,
    FAILED_CONNECTIONS,
    MTLS_CONNECTIONS,
    RECEIVED,
    RESPONSES,
    SENT,
    Series,
)
from nginx_mesh.traffic.flows import Counts, Flow
from nginx_mesh.traffic.graph import Edge, GraphNode, edges, node_of, security
from nginx_mesh.traffic.timeline import Timeline

WEB = GraphNode("shop", "deployment", "web")
CLIENT = GraphNode("shop", "pod", "client")


def flow(counts: Counts, service: str = "web", pod: str = "web-1") -> Flow:
    destination = {"pod": pod, "namespace": "shop", "deployment": "web", "service": service}
    return Flow({"pod": "client", "namespace": "shop"}, destination, counts)


def test_the_pods_of_a_workload_are_one_node_and_a_pod_without_an_owner_is_a_node() -> None:
    found = edges(
        [
            flow(Counts(3, mtls=3)),
            flow(Counts(1, 1, mtls=2), "web-canary", "web-2"),
            Flow({"pod": "client", "namespace": "shop"}, {}, Counts(5)),
        ]
    )
    assert found == {(CLIENT, WEB): Edge(Counts(4, 1, mtls=5), services={"shop/web", "shop/web-canary"})}
    assert str(WEB) == "shop/deployment/web"
    # of another trust domain only the Service is known
    assert node_of({"service": "far", "namespace": "shop"}) == GraphNode("shop", "service", "far")


@pytest.mark.parametrize(
    ("counts", "seen"),
    [
        (Counts(), "unknown"),
        (Counts(10, mtls=10), "mtls"),
        (Counts(10), "plaintext"),
        (Counts(10, mtls=4), "mixed"),
        # refused by the other side's rules: it was asked, so it proved who it is
        (Counts(0, 10, mtls=10), "mtls"),
        # nobody proved anything where no handshake succeeds
        (Counts(0, 10, mtls=10, unanswered=10), "unproved"),
    ],
)
def test_security_is_mtls_only_when_all_requests_were_mtls_and_one_was_answered(counts: Counts, seen: str) -> None:
    assert security(Edge(counts)) == seen


@pytest.mark.parametrize(
    ("tcp", "seen"),
    [
        (Connections(2, mtls=2), "mtls"),
        (Connections(2), "plaintext"),
        (Connections(2, mtls=1), "mixed"),
        (Connections(2, failed=2, mtls=2), "unproved"),
        # what flows over a connection from before says nothing of how that was made
        (Connections(sent=100), "unknown"),
    ],
)
def test_the_security_of_connections_is_like_that_of_requests(tcp: Connections, seen: str) -> None:
    assert security(Edge(tcp=tcp)) == seen
    assert security(Edge(Counts(5), tcp)) == ("mixed" if tcp.mtls else "plaintext")


def test_connections_are_grouped_by_client_and_server() -> None:
    ends = {"pod": "a", "namespace": "n", "dst_pod": "b", "dst_namespace": "m", "dst_deployment": "db"}

    def series(name: str, server: str) -> Series:
        return name, tuple(sorted({**ends, "server": server, "upstream": "u"}.items()))

    found = tcp_flows(
        [
            (series(CONNECTIONS, "1"), 3),
            (series(CONNECTIONS, "2"), 1),
            (series(FAILED_CONNECTIONS, "2"), 1),
            (series(MTLS_CONNECTIONS, "1"), 3),
            (series(SENT, "1"), 100),
            (series(RECEIVED, "1"), 50),
            (series(RESPONSES, "1"), 7),
        ]
    )
    assert [each.connections for each in found] == [Connections(4, 1, 3, 100, 50)]
    assert edges([], found) == {
        (GraphNode("n", "pod", "a"), GraphNode("m", "deployment", "db")): Edge(tcp=Connections(4, 1, 3, 100, 50))
    }


@given(st.lists(st.tuples(st.floats(0.001, 1e6), st.booleans()), min_size=1, max_size=20))
def test_rounding_errors_of_rates_do_not_change_the_security(parts: list[tuple[float, bool]]) -> None:
    sums = Counts()
    for rate, mtls in parts:
        sums.add(Counts(rate, mtls=rate if mtls else 0))
    kinds = {mtls for _, mtls in parts}
    smallest = min(rate for rate, _ in parts) / sums.success
    if len(kinds) == 1:
        assert security(Edge(sums)) == ("mtls" if kinds == {True} else "plaintext")
    elif smallest > 1e-5:
        assert security(Edge(sums)) == "mixed"


def test_a_timeline_has_rate_success_and_quantiles_at_each_point() -> None:
    timeline = Timeline(10)
    timeline.add([flow(Counts(3, 1, {10: 4, math.inf: 4}))])
    timeline.add([flow(Counts(4, 0, {10: 0, 20: 4, math.inf: 4}), pod="web-2")])
    timeline.close(100)
    timeline.close(105)
    series = timeline.series(WEB, "from")
    assert timeline.times == [100, 105]
    assert series.rate == [8, 0]
    assert series.success == [7 / 8, None]
    assert series.p50 == [10, None]
    assert timeline.series(CLIENT, "to") == series
    assert timeline.series(WEB, "to").rate == [0, 0]


def test_a_timeline_keeps_only_the_newest_points() -> None:
    timeline = Timeline(3)
    for when in range(10):
        if when < 8:
            timeline.add([flow(Counts(when))])
        timeline.close(when)
    assert timeline.times == [7, 8, 9]
    assert timeline.series(WEB, "from").rate == [7, 0, 0]
    timeline.close(10)
    timeline.close(11)
    assert timeline.series(WEB, "from").rate == [0, 0, 0]
