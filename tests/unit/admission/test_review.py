"""Policies that conflict with other objects are refused; missing objects are warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.admission import Review, review, review_changes
from nginx_mesh.api.cluster import ServiceAccount
from nginx_mesh.api.kinds import decode, to_dict
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import RateLimit
from nginx_mesh.api.services import Service
from nginx_mesh.catalog.policies import limited_destination, limited_sources

API_VERSIONS = {
    "TrafficTarget": "access.smi-spec.io/v1alpha2",
    "HTTPRouteGroup": "specs.smi-spec.io/v1alpha3",
    "TrafficSplit": "split.smi-spec.io/v1alpha3",
    "RateLimit": "specs.smi.nginx.com/v1alpha2",
    "CircuitBreaker": "specs.smi.nginx.com/v1alpha1",
}


class Others:
    """The stored objects for a review."""

    def __init__(self, *objects: Object) -> None:
        self._objects = {obj.key: obj for obj in objects}

    def get(self, key: ObjectKey) -> Object | None:
        return self._objects.get(key)

    def limits_of(self, destination: ObjectKey) -> Sequence[RateLimit]:
        limits = (obj for obj in self._objects.values() if isinstance(obj, RateLimit))
        return [limit for limit in limits if limited_destination(limit) == destination]


def make(kind: str, name: str, spec: Mapping[str, Any], *, namespace: str = "shop") -> Object:
    metadata = {"name": name, "namespace": namespace}
    return decode({"apiVersion": API_VERSIONS.get(kind, "v1"), "kind": kind, "metadata": metadata, "spec": dict(spec)})


def limit(name: str, *sources: str, to: str = "web", rate: str = "1r/s", rules: Sequence[str] = ()) -> RateLimit:
    references = [{"kind": "Deployment", "name": source} for source in sources]
    spec: dict[str, Any] = {"destination": {"kind": "Service", "name": to}, "name": name, "rate": rate}
    spec["rules"] = [{"kind": "HTTPRouteGroup", "name": rule} for rule in rules]
    made = make("RateLimit", name, {**spec, "sources": references})
    assert isinstance(made, RateLimit)
    return made


def breaker(fallback: Mapping[str, Any] | None, **destination: str) -> Object:
    spec: dict[str, Any] = {"destination": {"kind": "Service", "name": "web", **destination}}
    spec |= {"errors": 1, "timeoutSeconds": 1}
    return make("CircuitBreaker", "p", spec if fallback is None else {**spec, "fallback": fallback})


def service(name: str, *ports: int) -> Object:
    return make("Service", name, {"ports": [{"name": f"p{port}", "port": port} for port in ports]})


def fields(faults: Sequence[Any]) -> list[str]:
    return [fault.field for fault in faults]


def test_two_rate_limits_cannot_have_the_same_destination_and_source() -> None:
    others = Others(limit("first", "a", "b"))
    verdict = review(limit("second", "c", "b"), None, others)
    assert [str(error) for error in verdict.errors] == [
        "spec.sources[1]: RateLimit shop/first limits Deployment shop/b at Service shop/web already"
    ]
    assert review(limit("second", "c"), None, others).errors == []
    assert review(limit("second", "b", to="api"), None, others).errors == []
    assert review(limit("second"), None, others).errors == []


def test_two_rate_limits_cannot_both_be_the_default_of_a_destination() -> None:
    (error,) = review(limit("second"), None, Others(limit("first"))).errors
    assert error.field == "spec.destination"
    assert "callers that no policy names" in error.reason


def test_a_rate_limit_does_not_conflict_with_itself() -> None:
    old = limit("first", "a")
    assert review(limit("first", "a", rate="2r/s"), old, Others(old)).errors == []


def test_an_existing_conflict_can_be_resolved_in_steps_and_not_made_worse() -> None:
    first, second = limit("first", "a", "b", "c"), limit("second", "a", "b")
    others = Others(first, second)
    assert review(limit("second", "a", "b", rate="5r/s"), second, others).errors == []
    assert review(limit("second", "a"), second, others).errors == []
    assert fields(review(limit("second", "a", "b", "c"), second, others).errors) == ["spec.sources[2]"]


def callers(policy: RateLimit) -> list[ObjectKey | None]:
    return [*limited_sources(policy)] or [None]


names = st.lists(st.sampled_from("abc"), max_size=3, unique=True)


@given(st.lists(st.tuples(st.sampled_from("xyz"), names, st.sampled_from(["web", "api"]))))
def test_accepted_rate_limits_never_conflict(changes: list[tuple[str, list[str], str]]) -> None:
    stored: dict[str, RateLimit] = {}
    for name, sources, to in changes:
        new = limit(name, *sources, to=to)
        taken = {
            (limited_destination(other), source)
            for other in stored.values()
            if other.key != new.key
            for source in callers(other)
        }
        clash = any((limited_destination(new), source) in taken for source in callers(new))
        refused = bool(review(new, stored.get(name), Others(*stored.values())).errors)
        assert refused is clash
        if not refused:
            stored[name] = new


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (breaker({"service": "other/backup"}), 'namespace "other", and the destination in "shop"'),
        (breaker({"service": "backup"}), 'namespace "default", and the destination in "shop"'),
        (breaker({"service": "shop/backup"}, namespace="other"), 'namespace "shop", and the destination in "other"'),
        (breaker({"service": "shop/web", "port": 8080}), "is the destination"),
    ],
)
def test_a_fallback_is_another_service_of_the_same_namespace(policy: Object, reason: str) -> None:
    (error,) = review(policy, None, Others()).errors
    assert error.field == "spec.fallback.service"
    assert reason in error.reason
    assert review(policy, policy, Others()).errors == []


def test_a_fallback_of_the_destinations_namespace_is_accepted() -> None:
    others = Others(service("web", 80), service("backup", 80))
    assert review(breaker({"service": "shop/backup"}), None, others) == Review()
    assert review(breaker(None), None, others) == Review()


def test_each_reference_to_a_missing_object_is_a_warning() -> None:
    account = "ServiceAccount"
    target = make(
        "TrafficTarget",
        "p",
        {
            "destination": {"kind": account, "name": "web"},
            "sources": [{"kind": account, "name": "a"}, {"kind": account, "name": "default"}],
            "rules": [
                {"kind": "HTTPRouteGroup", "name": "routes", "matches": ["get", "put"]},
                {"kind": "TCPRoute", "name": "t"},
            ],
        },
    )
    split = make(
        "TrafficSplit",
        "p",
        {
            "service": "web",
            "backends": [{"service": "web-v1", "weight": 1}, {"service": "web-v2", "weight": 0}],
            "matches": [{"kind": "HTTPRouteGroup", "name": "canary"}],
        },
    )
    routes = make("HTTPRouteGroup", "routes", {"matches": [{"name": "get", "methods": ["GET"]}]})
    others = Others(routes, service("web", 80), service("backup", 8080))
    faults: list[tuple[Object, list[str]]] = [
        (target, ["spec.destination", "spec.sources[0]", "spec.rules[1].name", "spec.rules[0].matches"]),
        (split, ["spec.backends[0].service", "spec.backends[1].service", "spec.matches[0].name"]),
        (limit("l", "a", rules=["none"]), ["spec.sources[0]", "spec.rules[0].name"]),
        (breaker({"service": "shop/backup"}), ["spec.fallback.port"]),
        (breaker({"service": "shop/none"}), ["spec.fallback.service"]),
    ]
    for policy, expected in faults:
        verdict = review(policy, None, others)
        assert verdict.errors == []
        assert fields(verdict.warnings) == expected


def test_references_to_existing_objects_are_no_warnings() -> None:
    account = decode({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": "shop"}})
    assert isinstance(account, ServiceAccount)
    target = make("TrafficTarget", "p", {"destination": {"kind": "ServiceAccount", "name": "web"}})
    assert review(target, None, Others(account)) == Review()
    web = service("web", 80)
    assert isinstance(web, Service)
    assert review(limit("l"), None, Others(web)) == Review()


def test_an_invalid_policy_is_not_compared_with_others() -> None:
    verdict = review(limit("second", "a", rate="fast"), None, Others(limit("first", "a")))
    assert fields(verdict.errors) == ["spec.rate"]
    assert verdict.warnings == []


def test_policies_that_are_stored_together_are_judged_by_what_will_be() -> None:
    """The RateLimit for "web" moves to "api" as another takes its place."""
    old, moved, new = limit("first"), limit("first", to="api"), limit("second")
    changes = {"moved": (to_dict(moved), to_dict(old)), "new": (to_dict(new), None)}
    together = review_changes(changes, Others(moved, new))
    assert {name: review.errors for name, review in together.items()} == {"moved": [], "new": []}
    assert review_changes({"new": (to_dict(new), None)}, Others(old, new))["new"].errors


def test_objects_that_are_no_policies_are_not_judged() -> None:
    service = make("Service", "web", {"ports": [{"port": 80}]})
    assert review_changes({0: (to_dict(service), None)}, Others(service)) == {}
