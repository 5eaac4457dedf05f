"""The reach of traffic policies: the sidecars that each policy affects, and the version of the state with the policy.

Whether a policy has an effect on a sidecar is read from the entries that were compiled for the sidecar, so that both
always agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.smi import HTTPRouteGroup, TCPRoute, TrafficSplit, TrafficTarget
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Changes, ServicePort
from nginx_mesh.catalog.multimap import MultiMap
from nginx_mesh.catalog.policies import destination_account, limited_destination, routes_of
from nginx_mesh.protocol.state import Inbound

from .breakers import breaker
from .engine import Compiler
from .splits import split

_Policy = TrafficTarget | RateLimit | TrafficSplit | CircuitBreaker | HTTPRouteGroup | TCPRoute
_POLICIES = (TrafficTarget.KIND, RateLimit.KIND, TrafficSplit.KIND, CircuitBreaker.KIND)
_ROUTES = (HTTPRouteGroup.KIND, TCPRoute.KIND)


@dataclass(frozen=True, slots=True)
class Reach:
    """The pods whose sidecars a policy affects (`pods`); None means all pods, as for policies that callers apply.

    `active` tells whether the policy has any effect on these sidecars. `version` is the first version of the state with
    the policy, and the routes that it names, as they are now. `problems` are the parts of it that have no effect.
    """

    pods: frozenset[ObjectKey] | None
    active: bool
    version: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """A policy's reach and the routes that it names. Other `content` (spec, routes, problems) gets a new version."""

    content: object
    routes: frozenset[ObjectKey]
    reach: Reach


class PolicyReach:
    """Follows the same catalog as `compiler`, which must get all changes first."""

    def __init__(self, catalog: Catalog, compiler: Compiler) -> None:
        self._catalog = catalog
        self._compiler = compiler
        self._known: dict[ObjectKey, _Known] = {}
        self._at: MultiMap[ObjectKey, ObjectKey] = MultiMap()  # pod to policies
        self._everywhere: set[ObjectKey] = set()
        self._sidecars: set[ObjectKey] = set()
        self.follow(catalog.initial_changes())

    def policies(self) -> set[ObjectKey]:
        """All policies."""
        return set(self._known)

    def get(self, policy: ObjectKey) -> Reach | None:
        """The reach of a policy; None when there is no such policy."""
        known = self._known.get(policy)
        return None if known is None else known.reach

    def policies_at(self, pod: ObjectKey) -> AbstractSet[ObjectKey]:
        """The policies that affect a pod's sidecar."""
        return self._at.get(pod) | self._everywhere

    def follow(self, changes: Changes) -> set[ObjectKey]:
        """Update the reach of policies that changes may affect. Returns the policies whose reach changed."""
        changed, routes = set(), {key for key in changes.objects if key.kind in _ROUTES}
        for policy in {key for key in self._touched(changes) if key.kind in _POLICIES}:
            before = self._known.get(policy)
            if self._update(policy):
                changed.add(policy)
                # A route reaches the same sidecars as the policies that name it, or named it until now.
                for known in filter(None, (before, self._known.get(policy))):
                    routes |= known.routes
        changed |= {route for route in routes if self._update(route)}
        return changed | self._everywhere if self._came_or_went(changes.pods) else changed

    def follow_settings(self) -> set[ObjectKey]:
        """Update all policies after the mesh's settings changed. Returns the policies whose reach changed."""
        return self.follow(Changes(objects=frozenset(self._known)))

    def _came_or_went(self, pods: AbstractSet[ObjectKey]) -> bool:
        """Whether any of these pods has got a sidecar or has lost it."""
        moved = {pod for pod in pods if bool(self._compiler.entries(pod)) != (pod in self._sidecars)}
        self._sidecars ^= moved
        return bool(moved)

    def _touched(self, changes: Changes) -> Iterator[ObjectKey]:
        policies, topology = self._catalog.policies, self._catalog.topology
        yield from changes.objects
        for pod in changes.pods:
            yield from self._at.get(pod)
            workload = topology.pod(pod)
            if workload is not None:
                for target in policies.targets_of((pod.namespace, workload.account)):
                    yield target.key
                for limit in policies.limits_of(topology.references_to(workload)):
                    yield limit.key
        for limit in policies.limits_of(changes.references):
            yield limit.key

    def _update(self, key: ObjectKey) -> bool:
        old, new = self._known.get(key), self._look(key)
        if new is None:
            self._known.pop(key, None)
        else:
            self._known[key] = new
        before, after = (known.reach.pods if known is not None else frozenset() for known in (old, new))
        if after is None:
            self._everywhere.add(key)
        else:
            self._everywhere.discard(key)
        for pod in (before or frozenset()) - (after or frozenset()):
            self._at.discard(pod, key)
        for pod in (after or frozenset()) - (before or frozenset()):
            self._at.add(pod, key)
        return (old and old.reach) != (new and new.reach)

    def _look(self, key: ObjectKey) -> _Known | None:
        policies = self._catalog.policies
        policy = (
            policies.target(key)
            or policies.limit(key)
            or policies.route(key)
            or policies.splits.get(key)
            or policies.breakers.get(key)
        )
        if policy is None:
            return None
        named = routes_of(policy)
        problems = tuple(f"{warning.field}: {warning.reason}" for warning in self._compiler.warnings.get(key, ()))
        routes = {route: found.spec for route in named if (found := policies.route(route)) is not None}
        content = (policy.spec, routes, problems)
        old = self._known.get(key)
        version = old.reach.version if old is not None and old.content == content else self._compiler.version
        pods, active = self._reach(policy)
        return _Known(content, frozenset(named), Reach(pods, active, version, problems))

    def _reach(self, policy: _Policy) -> tuple[frozenset[ObjectKey] | None, bool]:
        """The pods whose sidecars a policy affects, and whether it has any effect on them."""
        topology = self._catalog.topology
        if isinstance(policy, TrafficTarget):
            port = policy.spec.destination.port
            pods = self._meshed(topology.pods_with_account(*destination_account(policy)))
            if port is not None:
                pods = frozenset(pod for pod in pods if f"inbound/{port}" in self._compiler.entries(pod))
            return pods, bool(pods)
        if isinstance(policy, RateLimit):
            pods = self._meshed(topology.pods_behind(limited_destination(policy)))
            return pods, any(self._limited(pod, policy) for pod in pods)
        if isinstance(policy, TrafficSplit | CircuitBreaker):
            return None, self._diverts(policy)
        naming = [self._known[key].reach for key in self._catalog.policies.naming(policy.key) if key in self._known]
        pods = frozenset[ObjectKey]().union(*(reach.pods for reach in naming if reach.pods is not None))
        everywhere = any(reach.pods is None for reach in naming)
        return None if everywhere else pods, any(reach.active for reach in naming)

    def _meshed(self, pods: AbstractSet[ObjectKey]) -> frozenset[ObjectKey]:
        return frozenset(pod for pod in pods if self._compiler.entries(pod))

    def _limited(self, pod: ObjectKey, policy: RateLimit) -> bool:
        name = policy.key.namespaced_name
        return any(
            limit.name == name or limit.name.startswith(f"{name}/")
            for entry in self._compiler.entries(pod).values()
            if isinstance(entry, Inbound)
            for limit in entry.limits
        )

    def _diverts(self, policy: TrafficSplit | CircuitBreaker) -> bool:
        """Whether the policy applies to any port of its Service."""
        catalog, name = self._catalog, policy.key.namespaced_name
        diversions = catalog.policies.splits if isinstance(policy, TrafficSplit) else catalog.policies.breakers
        ends = diversions.services(policy.key)
        service = None if ends is None else catalog.topology.service(ends.root)
        ports = [] if service is None else [ServicePort(service.key, port) for port in service.ports]
        if isinstance(policy, TrafficSplit):
            splits = (split(catalog, port) for port in ports)
            return any(entry is not None and entry.split == name for entry in splits)
        breakers = (breaker(catalog, port) for port in ports)
        return any(entry is not None and entry.breaker == name for entry in breakers)
