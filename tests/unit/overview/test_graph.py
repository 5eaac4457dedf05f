"""Nodes of the graph: workloads with their pods, modes and traffic, and the sidecars that do not answer."""

from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.api.values import MtlsMode
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.overview.edges import EdgeTraffic
from nginx_mesh.overview.graph import (
    pods_by_node,
    replicas_by_node,
    sidecar_summary,
    totals,
    workload_summaries,
    workload_summary,
)
from nginx_mesh.traffic.graph import GraphNode
from tests.unit.compile.compiled import catalog_of
from tests.unit.compile.objects import pod, pod_key

from .meshobjects import CLIENT, OBJECTS, WEB_V1, WEB_V2, owned, requests, traffic


def pods(*more: Any) -> list[PodRecord]:
    return list(catalog_of(*OBJECTS, *more).topology.pods())


def workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"namespace": "default", "name": name}, "spec": spec}


def test_pods_are_grouped_by_what_made_them_and_a_pod_of_nothing_is_a_node_itself() -> None:
    found = pods_by_node(pods(pod("alone", ips=["10.0.0.9"])))
    assert sorted(each.key.name for each in found[WEB_V1]) == ["web-v1-1", "web-v1-2"]
    assert [each.key.name for each in found[GraphNode("default", "pod", "alone")]] == ["alone"]


def test_replicas_are_those_of_the_spec_one_by_default_and_open_for_a_daemonset() -> None:
    assert replicas_by_node(
        [
            workload("Deployment", "web", replicas=3),
            workload("Deployment", "one"),
            workload("StatefulSet", "db", replicas=0),
            workload("DaemonSet", "agent"),
        ]
    ) == {
        GraphNode("default", "deployment", "web"): 3,
        GraphNode("default", "deployment", "one"): 1,
        GraphNode("default", "statefulset", "db"): 0,
        GraphNode("default", "daemonset", "agent"): 0,
    }


def test_a_workload_shows_its_traffic_in_both_directions() -> None:
    sums = totals({**traffic(requests(3)), **traffic(requests(1, failed=1), server=WEB_V2)})
    client = workload_summary(CLIENT, [], 1, {}, sums)
    assert (client["in"], client["out"]["rate"], client["out"]["success"]) == (None, 4, 0.75)
    web = workload_summary(WEB_V2, [], 1, {}, sums)
    assert (web["in"]["rate"], web["in"]["success"], web["out"]) == (1, 0, None)


@pytest.mark.parametrize(("replicas", "expected"), [(None, 2), (0, 2), (1, 2), (5, 5)])
def test_pods_are_as_many_as_wanted_and_at_least_those_that_there_are(replicas: int | None, expected: int) -> None:
    members = [each for each in pods() if each.key.name.startswith("web-v1")]
    assert workload_summary(WEB_V1, members, replicas, {}, {})["pods"] == expected


def test_a_workload_shows_readiness_sidecars_and_mtls_modes_of_its_pods() -> None:
    members = [
        each
        for each in pods(owned("web-v1-2", "web-v1", "10.0.0.3", ready=False))
        if each.key.name.startswith("web-v1")
    ]
    modes: dict[Any, MtlsMode] = {pod_key("web-v1-1"): "strict", pod_key("web-v1-2"): "off", pod_key("x"): "permissive"}
    found = workload_summary(WEB_V1, members, 2, modes, {})
    assert (found["ready"], found["meshed"], found["mtls_modes"]) == (1, True, ["off", "strict"])
    plain = pods(owned("web-v1-2", "web-v1", "10.0.0.3", meshed=False))
    assert workload_summary(WEB_V1, pods_by_node(plain)[WEB_V1], 2, {}, {})["meshed"] is False
    assert workload_summary(WEB_V1, [], 2, {}, {})["meshed"] is False


def test_workloads_with_pods_with_an_object_or_with_traffic_only_are_nodes() -> None:
    gone, far = GraphNode("default", "deployment", "gone"), GraphNode("default", "service", "far")
    found = workload_summaries(pods(), {gone: 0, WEB_V1: 2}, {}, {(CLIENT, far): EdgeTraffic(requests(2), requests(2))})
    assert [each["id"] for each in found] == [str(node) for node in (CLIENT, gone, WEB_V1, WEB_V2, far)]
    by_id = {each["id"]: each for each in found}
    assert (by_id[str(gone)]["pods"], by_id[str(far)]["pods"], by_id[str(far)]["in"]["rate"]) == (0, 0, 2)


def test_silent_sidecars_are_named_by_pod_ten_at_most_and_not_when_the_pod_is_gone() -> None:
    objects = [{"metadata": {"uid": f"u{n}", "namespace": "default", "name": f"web-{n:02}"}} for n in range(20)]
    found = sidecar_summary(pods(pod("plain", meshed=False)), 3, {"u3", "u1", "gone"}, objects)
    assert found == {"all": 4, "live": 3, "silent": 2, "silent_names": ["default/web-01", "default/web-03"]}
    many = sidecar_summary([], 0, {f"u{n}" for n in range(20)}, objects)
    assert (many["silent"], len(many["silent_names"]), many["silent_names"][0]) == (20, 10, "default/web-00")
