"""Edges of the graph: how traffic was sent, and the TrafficSplits and circuits on it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from nginx_mesh.overview.edges import circuits_by_edge, edge_documents, splits_by_backend
from nginx_mesh.traffic.exposition import BREAKER, Series
from nginx_mesh.traffic.graph import Edge
from tests.unit.compile.compiled import catalog_of
from tests.unit.compile.objects import group, split

from .meshobjects import CLIENT, OBJECTS, WEB_V1, WEB_V2, connections, owned, requests, traffic


def state(value: float, *, pod: str = "client-1", breaker: str = "default/web", upstream: str) -> dict[Series, float]:
    """The metric of one circuit, of one of the client's sidecars."""
    labels = {"pod": pod, "namespace": "default", "deployment": "client", "breaker": breaker, "upstream": upstream}
    return {(BREAKER, tuple(sorted(labels.items()))): value}


def test_an_edge_has_rate_success_latency_and_the_services_of_its_endpoints() -> None:
    window = requests(4, failed=1, mtls=4, services=("default/web-v1", "default/web"))
    (edge,) = edge_documents(traffic(window), {}, {})
    assert edge == {
        "from": "default/deployment/client",
        "to": "default/deployment/web-v1",
        "services": ["default/web", "default/web-v1"],
        "rate": 4,
        "success": 0.75,
        "p50": 5,
        "p90": 9,
        "p99": 9.9,
        "tcp": None,
        "security": "mtls",
        "splits": [],
        "circuits": [],
    }


def test_connections_are_counted_apart_from_requests() -> None:
    (edge,) = edge_documents(traffic(connections(2, failed=0.5, mtls=2)), {}, {})
    assert edge["tcp"] == {"rate": 2, "success": 0.75, "bytes": 200}
    assert (edge["rate"], edge["success"], edge["p50"]) == (0, None, None)
    open_before = Edge()
    open_before.tcp.sent = 10
    (edge,) = edge_documents(traffic(open_before), {}, {})
    assert edge["tcp"] == {"rate": 0, "success": None, "bytes": 10}


@pytest.mark.parametrize(
    ("window", "recent", "expected"),
    [
        (requests(4, mtls=4), requests(4, mtls=4), "mtls"),
        (requests(4), requests(4), "plaintext"),
        (requests(4, mtls=1), requests(4, mtls=1), "mixed"),
        # a change of the mode shows before the traffic of before has left the window
        (requests(4, mtls=3), requests(4), "plaintext"),
        (requests(4, mtls=1), requests(4, mtls=4), "mtls"),
        # without recent traffic that of the window counts
        (requests(4, mtls=4), Edge(), "mtls"),
        (requests(4), Edge(), "plaintext"),
        (Edge(), Edge(), "unknown"),
        (connections(1, mtls=1), connections(1, mtls=1), "mtls"),
    ],
)
def test_security_is_that_of_recent_traffic_or_else_of_the_window(window: Edge, recent: Edge, expected: str) -> None:
    (edge,) = edge_documents(traffic(window, recent), {}, {})
    assert edge["security"] == expected


def test_edges_are_sorted_by_caller_and_server() -> None:
    both = {**traffic(requests(1), server=WEB_V2), **traffic(requests(1), server=WEB_V1)}
    assert [edge["to"] for edge in edge_documents(both, {}, {})] == [str(WEB_V1), str(WEB_V2)]


def test_a_split_is_on_the_edges_of_its_backends_with_its_weights() -> None:
    catalog = catalog_of(*OBJECTS, split("canary", "web", {"web-v1": 75, "web-v2": 25, "web-v3": -1}))
    splits = splits_by_backend(catalog.policies.splits)
    (edge,) = edge_documents(traffic(requests(1, services=("default/web-v1",))), splits, {})
    assert edge["splits"] == [
        {
            "split": "default/canary",
            "root": "web",
            "service": "web-v1",
            "weight": 75,
            "whole": 100,
            "matches": False,
        }
    ]
    (edge,) = edge_documents(traffic(requests(1, services=("default/other",))), splits, {})
    assert edge["splits"] == []


def test_only_the_oldest_split_of_a_root_service_is_shown_and_whether_it_matches_some_requests_only() -> None:
    older = split("older", "web", {"web-v1": 1}, "beta", created="2024-01-01T00:00:00Z")
    newer = split("a-newer", "web", {"web-v1": 1, "web-v2": 1}, created="2024-01-02T00:00:00Z")
    splits = splits_by_backend(catalog_of(newer, older, group("beta")).policies.splits)
    assert [(part["split"], part["matches"]) for part in splits["default/web-v1"]] == [("default/older", True)]
    assert "default/web-v2" not in splits


def test_a_circuit_counts_the_sidecars_in_each_state_on_every_edge_to_its_service() -> None:
    topology = catalog_of(*OBJECTS).topology
    sidecars: list[Mapping[Series, float]] = [
        state(0, upstream="default/web:80"),
        state(1, upstream="default/web:80", pod="client-2"),
        state(1, upstream="default/web:80", pod="client-3"),
        state(2, upstream="default/web:80", pod="client-4"),
    ]
    circuit = {"breaker": "default/web", "service": "default/web:80", "closed": 1, "open": 2, "half_open": 1}
    assert circuits_by_edge(sidecars, topology) == {(CLIENT, WEB_V1): [circuit], (CLIENT, WEB_V2): [circuit]}


def test_circuits_of_services_without_pods_and_of_the_caller_itself_are_on_no_edge() -> None:
    topology = catalog_of(*OBJECTS).topology
    itself = {"pod": "web-v1-1", "namespace": "default", "deployment": "web-v1", "upstream": "default/web-v1:80"}
    unknown = state(1, upstream="default/nothing:80") | state(1, upstream="") | state(1, upstream="::")
    assert (
        circuits_by_edge([unknown, {(BREAKER, tuple(sorted(itself.items()))): 1.0}, {(BREAKER, ()): 1.0}], topology)
        == {}
    )


def test_the_circuits_of_an_edge_are_sorted_by_name() -> None:
    topology = catalog_of(*OBJECTS).topology
    sidecar = state(0, upstream="default/web:80", breaker="default/z") | state(0, upstream="default/web-v1:80")
    circuits = circuits_by_edge([sidecar], topology)
    assert [circuit["breaker"] for circuit in circuits[CLIENT, WEB_V1]] == ["default/web", "default/z"]
    assert [circuit["breaker"] for circuit in circuits[CLIENT, WEB_V2]] == ["default/z"]


@pytest.mark.parametrize(("value", "listed"), [(0, False), (1, True), (2, True)])
def test_an_edge_without_traffic_is_listed_when_its_circuit_is_not_closed(value: float, listed: bool) -> None:
    circuits = circuits_by_edge([state(value, upstream="default/web-v1:80")], catalog_of(*OBJECTS).topology)
    edges = edge_documents({}, {}, circuits)
    assert [(edge["to"], edge["rate"], edge["security"]) for edge in edges] == (
        [(str(WEB_V1), 0, "unknown")] if listed else []
    )
    (edge,) = edge_documents(traffic(requests(1)), {}, circuits)
    assert edge["circuits"] == circuits[CLIENT, WEB_V1]


def test_a_pod_that_is_not_ready_is_still_behind_its_circuit() -> None:
    down = owned("web-v2-1", "web-v2", "10.0.0.4", ready=False)
    circuits = circuits_by_edge([state(1, upstream="default/web-v2:80")], catalog_of(*OBJECTS, down).topology)
    assert list(circuits) == [(CLIENT, WEB_V2)]
