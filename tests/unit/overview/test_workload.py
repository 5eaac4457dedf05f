"""One workload: its pods, the policies that concern it and its events."""

from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.overview.workload import events_of, key_of_node, pod_document, policies_of, policy_document
from nginx_mesh.traffic.graph import GraphNode
from tests.unit.compile.compiled import catalog_of
from tests.unit.compile.objects import breaker, pod_key, split

from .meshobjects import CLIENT, OBJECTS, WEB_V1, WEB_V2, owned

TARGET, SPLIT, BREAKER = (
    ObjectKey(kind, "default", name)
    for kind, name in (("TrafficTarget", "web"), ("TrafficSplit", "canary"), ("CircuitBreaker", "web-v2"))
)
IDENTITY = {
    "namespace": "default",
    "pod": "web-v1-1",
    "uid": "u",
    "spiffe_id": "spiffe://example.org/ns/default/sa/web-v1",
    "dns_names": [],
    "serial": "1f",
    "issuer": "ca",
    "not_after": 2.0,
    "renew_at": 1.0,
}


def stored(**more: Any) -> dict[str, Any]:
    """A pod as it is stored."""
    return {
        "kind": "Pod",
        "metadata": {"name": "web-v1-1", "namespace": "default", "creationTimestamp": "2024-01-01T00:00:00Z"},
        **more,
    }


def document(
    resource: dict[str, Any], identity: dict[str, Any] | None = None, *, meshed: bool = True
) -> dict[str, Any]:
    (pod,) = catalog_of(owned("web-v1-1", "web-v1", "10.0.0.2", meshed=meshed)).topology.pods()
    return pod_document(resource, pod, "strict" if meshed else None, None, identity or {})


def policy(kind: str, conditions: list[dict[str, str]] | None = None, **spec: Any) -> dict[str, Any]:
    status = {} if conditions is None else {"status": {"conditions": conditions}}
    return {"kind": kind, "metadata": {"namespace": "default", "name": "one"}, "spec": spec, **status}


def event(kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
    return {"involvedObject": {"kind": kind, "namespace": namespace, "name": name}}


def test_a_pod_shows_its_status_and_its_svid() -> None:
    status = {
        "phase": "Running",
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [{"restartCount": 2}, {"restartCount": 1}, {}],
        "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}],
    }
    assert document(stored(status=status), IDENTITY) == {
        "name": "web-v1-1",
        "phase": "Running",
        "ready": True,
        "restarts": 3,
        "started": "2024-01-01T00:00:00Z",
        "addresses": ["10.0.0.2", "fd00::2"],
        "meshed": True,
        "mtls_mode": "strict",
        "silent": None,
        "identity": {
            "spiffe_id": "spiffe://example.org/ns/default/sa/web-v1",
            "serial": "1f",
            "issuer": "ca",
            "not_after": 2.0,
            "renew_at": 1.0,
        },
    }


def test_a_pod_without_a_status_is_pending_and_one_that_is_deleted_terminates() -> None:
    new = document(stored(), meshed=False)
    assert (new["phase"], new["ready"], new["restarts"], new["addresses"]) == ("Pending", False, 0, [])
    assert (new["meshed"], new["mtls_mode"], new["identity"]) == (False, None, {})
    deleted = stored(status={"phase": "Running"})
    deleted["metadata"]["deletionTimestamp"] = "2024-01-02T00:00:00Z"
    assert document(deleted)["phase"] == "Terminating"


@pytest.mark.parametrize(
    ("node", "servers", "expected"),
    [
        # the server's own: what its sidecars enforce, and what names a Service of it
        (WEB_V1, [], [SPLIT, TARGET]),
        (WEB_V2, [], [BREAKER, SPLIT, TARGET]),
        # the caller's: what names a Service of the servers that it calls
        (CLIENT, [], [TARGET]),
        (CLIENT, [WEB_V1], [SPLIT, TARGET]),
        (CLIENT, [WEB_V2], [BREAKER, SPLIT, TARGET]),
        (CLIENT, [GraphNode("default", "service", "far")], [TARGET]),
    ],
)
def test_splits_and_breakers_concern_a_workload_by_its_services_and_those_that_it_calls(
    node: GraphNode, servers: list[GraphNode], expected: list[ObjectKey]
) -> None:
    catalog = catalog_of(*OBJECTS, split("canary", "web", {"web-v1": 1, "web-v2": 1}), breaker("web-v2", "web-v2"))
    # a sidecar has the splits and breakers of all Services
    assert policies_of(node, servers, {TARGET, SPLIT, BREAKER}, catalog) == sorted(expected)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (None, ("Unknown", "", "")),
        ([{"type": "Other", "status": "True", "reason": "Other"}], ("Unknown", "", "")),
        (
            [{"type": "InForce", "status": "False", "reason": "Pending", "message": "1 of 2 sidecars have it"}],
            ("False", "Pending", "1 of 2 sidecars have it"),
        ),
    ],
)
def test_a_policy_shows_whether_it_is_in_force(
    conditions: list[dict[str, str]] | None, expected: tuple[str, str, str]
) -> None:
    found = policy_document(policy("RateLimit", conditions, rate="10r/s"))
    assert (found["in_force"], found["reason"], found["message"]) == expected
    assert (found["kind"], found["namespace"], found["name"]) == ("RateLimit", "default", "one")


@pytest.mark.parametrize(
    ("resource", "rule"),
    [
        (
            policy(
                "TrafficSplit", service="web", backends=[{"service": "v1", "weight": 9}, {"service": "v2", "weight": 1}]
            ),
            "web → v1 9, v2 1",
        ),
        (policy("CircuitBreaker", errors=3, timeoutSeconds=30), "3 errors within 30 s open it"),
        (policy("RateLimit", rate="10r/m"), "10r/m"),
        (policy("TrafficTarget", sources=[{"name": "a"}, {"name": "b"}]), "from a, b"),
        (policy("HTTPRouteGroup"), ""),
    ],
)
def test_a_policy_shows_its_rule_in_one_line(resource: dict[str, Any], rule: str) -> None:
    assert policy_document(resource)["says"] == rule


def test_events_of_a_workload_are_those_of_its_object_and_of_its_pods() -> None:
    own, of_pod = event("Deployment", "web-v1"), event("Pod", "web-v1-1")
    others = [
        event("Deployment", "web-v2"),
        event("Deployment", "web-v1", "other"),
        event("Service", "web-v1"),
        event("Pod", "web-v1-2"),
    ]
    assert events_of([own, *others, of_pod], WEB_V1, {pod_key("web-v1-1")}) == [own, of_pod]
    assert events_of([own, *others], GraphNode("default", "service", "web-v1"), set()) == []


def test_every_kind_of_workload_has_a_key_and_a_service_has_none() -> None:
    assert key_of_node(GraphNode("a", "replicaset", "b")) == ObjectKey("ReplicaSet", "a", "b")
    assert key_of_node(GraphNode("a", "pod", "b")) == ObjectKey("Pod", "a", "b")
    assert key_of_node(GraphNode("a", "service", "b")) is None
