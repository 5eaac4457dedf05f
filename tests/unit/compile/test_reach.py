"""The sidecars that a policy affects, and since which version."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.changes import Changes, Delete, union
from nginx_mesh.compile.reach import PolicyReach, Reach

from . import objects
from .test_incremental import Run, steps


class Enforced(Run):
    """A run whose policies are followed; `told` are the policies that the last changes were reported to affect."""

    enforcement: PolicyReach | None = None
    told: frozenset[ObjectKey] = frozenset()

    def compile(self) -> None:
        changes = union(Changes(), *self.pending)
        before = self.standing()
        super().compile()
        if self.enforcement is None:
            self.enforcement = PolicyReach(self.catalog, self.compiler)
            return
        self.told = frozenset(self.enforcement.follow(changes))
        after = self.standing()
        assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} <= self.told

    def step(self, step: Any) -> None:
        super().step(step)
        if isinstance(step, MeshSettings) and self.enforcement is not None:
            self.enforcement.follow_settings()

    def standing(self) -> dict[ObjectKey, tuple[Reach | None, int]]:
        """Of every policy its force and how many sidecars it is for."""
        if self.enforcement is None:
            return {}
        everybody = len(self.compiler.sidecars())
        forces = {key: self.enforcement.get(key) for key in self.enforcement.policies()}
        return {
            key: (force, everybody if force is None or force.pods is None else len(force.pods))
            for key, force in forces.items()
        }

    def force(self, kind: str, name: str, namespace: str = "default") -> Reach:
        self.compile()
        assert self.enforcement is not None
        force = self.enforcement.get(ObjectKey(kind, namespace, name))
        assert force is not None
        return force


@settings(max_examples=200, deadline=None)
@given(steps)
def test_following_changes_ends_with_the_same_reach_as_starting_anew(steps: list[Any]) -> None:
    run = Enforced(1000)
    for step in steps:
        run.step(step)
    run.compile()
    assert run.enforcement is not None
    fresh = PolicyReach(run.catalog, run.compiler)
    assert run.enforcement.policies() == fresh.policies() == run.catalog.policies.keys()
    for key in fresh.policies():
        force, expected = run.enforcement.get(key), fresh.get(key)
        assert force is not None
        assert expected is not None
        assert (force.pods, force.active, force.problems) == (expected.pods, expected.active, expected.problems)
        assert force.version <= run.compiler.version
    for pod in run.compiler.sidecars():
        assert run.enforcement.policies_at(pod) == fresh.policies_at(pod)


def shop() -> Enforced:
    """A mesh with a client and two pods of a Service."""
    run = Enforced(1000)
    for obj in (
        objects.pod("web-1", ips=["10.1.0.1"], labels={"app": "web"}, account="web"),
        objects.pod("web-2", ips=["10.1.0.2"], labels={"app": "web"}, account="web"),
        objects.pod("client", ips=["10.1.0.3"], account="client"),
        objects.pod("bare", ips=["10.1.0.4"], labels={"app": "web"}, account="web", meshed=False),
        objects.service("web", objects.port(80, target=8080), selector={"app": "web"}, vips=["10.96.1.1"]),
    ):
        run.step(obj)
    run.compile()
    return run


WEB = frozenset({objects.pod_key("web-1"), objects.pod_key("web-2")})


def test_policies_that_servers_enforce_affect_their_pods_with_sidecars() -> None:
    run = shop()
    run.step(objects.target("t", "web", ["client"], objects.http("routes")))
    run.step(objects.group("routes", {"name": "all"}))
    run.step(objects.limit("l", ("Service", "web"), "1r/s"))
    for kind, name in (("TrafficTarget", "t"), ("RateLimit", "l"), ("HTTPRouteGroup", "routes")):
        force = run.force(kind, name)
        assert (force.pods, force.active, force.problems) == (WEB, True, ())


def test_policies_that_callers_apply_affect_every_sidecar() -> None:
    run = shop()
    run.step(objects.split("s", "web", {"web": 1}))
    run.step(objects.breaker("b", "web"))
    for kind, name in (("TrafficSplit", "s"), ("CircuitBreaker", "b")):
        force = run.force(kind, name)
        assert (force.pods, force.active) == (None, True)
    run.step(objects.pod("late", ips=["10.1.0.9"]))
    run.compile()
    assert {ObjectKey("TrafficSplit", "default", "s"), ObjectKey("CircuitBreaker", "default", "b")} <= run.told


def test_a_policy_for_a_port_that_no_pod_has_affects_no_sidecar() -> None:
    run = shop()
    run.step(objects.target("t", "web", ["client"], port=8080))
    assert run.force("TrafficTarget", "t").pods == WEB
    run.step(objects.target("t", "web", ["client"], port=9999))
    force = run.force("TrafficTarget", "t")
    assert (force.pods, force.active) == (frozenset(), False)


def test_the_younger_of_two_conflicting_policies_has_no_effect_until_the_older_is_deleted() -> None:
    run = shop()
    for number, name in enumerate("ab"):
        created = f"2024-01-0{2 - number}T00:00:00Z"
        run.step(objects.limit(name, ("Service", "web"), "1r/s", created=created))
        run.step(objects.split(name, "web", {"web": 1}, created=created))
        run.step(objects.breaker(name, "web", created=created))
    for kind in ("RateLimit", "TrafficSplit", "CircuitBreaker"):
        assert (run.force(kind, "a").active, run.force(kind, "b").active) == (False, True)
        assert f"{kind} default/b" in run.force(kind, "a").problems[0]
        run.step(Delete(ObjectKey(kind, "default", "b")))
        assert run.force(kind, "a").active
        assert run.force(kind, "a").problems == ()


def test_the_version_is_that_of_the_last_change_of_a_policy_or_of_its_routes() -> None:
    run = shop()
    run.step(objects.target("t", "web", ["client"], objects.http("routes")))
    run.step(objects.group("routes", {"name": "all"}))
    first = run.force("TrafficTarget", "t").version
    assert first == run.compiler.version
    run.step(objects.target("other", "client", ["web"]))
    run.step(objects.pod("web-3", ips=["10.1.0.5"], labels={"app": "web"}, account="web"))
    assert run.force("TrafficTarget", "t").version == first < run.compiler.version
    run.step(objects.group("routes", {"name": "all", "methods": ["GET"]}))
    second = run.force("TrafficTarget", "t").version
    assert second == run.compiler.version == run.force("HTTPRouteGroup", "routes").version
    run.step(objects.target("t", "web", ["client", "web"], objects.http("routes")))
    assert run.force("TrafficTarget", "t").version > second


def test_a_route_reaches_the_sidecars_of_the_policies_that_name_it() -> None:
    run = shop()
    run.step(objects.group("routes", {"name": "all"}))
    assert run.force("HTTPRouteGroup", "routes").pods == frozenset()
    run.step(objects.limit("l", ("Pod", "web-1"), "1r/s", objects.http("routes")))
    assert run.force("HTTPRouteGroup", "routes").pods == frozenset({objects.pod_key("web-1")})
    run.step(objects.split("s", "web", {"web": 1}, "routes"))
    assert run.force("HTTPRouteGroup", "routes").pods is None
    run.step(Delete(ObjectKey("TrafficSplit", "default", "s")))
    run.step(Delete(ObjectKey("RateLimit", "default", "l")))
    assert run.force("HTTPRouteGroup", "routes").pods == frozenset()
