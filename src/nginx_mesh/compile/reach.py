"""The reach of traffic policies: which sidecars each policy concerns, and since which version of the state.

What a policy makes a sidecar do is read from the entries that were compiled for the sidecar, so what is said here
cannot differ from what the sidecar is given.
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
    """`pods` are those whose sidecars a policy concerns, None for all there are: what callers do concerns every caller.

    `active`: any of them has something of it to do. `version` is the first with the policy, and what it names, as they
    are; `problems` say what of it does nothing.
    """

    pods: frozenset[ObjectKey] | None
    active: bool
    version: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """`content` is what a policy says, with what it names: another content is another version."""

    content: object
    routes: frozenset[ObjectKey]
    reach: Reach


class PolicyReach:
    """Follows a catalog that `compiler` follows too: changes must be given to that first."""

    def __init__(self, catalog: Catalog, compiler: Compiler) -> None:
        self._catalog = catalog
        self._compiler = compiler
        self._known: dict[ObjectKey, _Known] = {}
        self._at: MultiMap[ObjectKey, ObjectKey] = MultiMap()  # pod to policies
        self._everywhere: set[ObjectKey] = set()
        self._sidecars: set[ObjectKey] = set()
        self.follow(catalog.initial_changes())

    def policies(self) -> set[ObjectKey]:
        """Every policy there is."""
        return set(self._known)

    def get(self, policy: ObjectKey) -> Reach | None:
        """The reach of a policy; None when there is no such policy."""
        known = self._known.get(policy)
        return None if known is None else known.reach

    def policies_at(self, pod: ObjectKey) -> AbstractSet[ObjectKey]:
        """The policies that concern a pod's sidecar."""
        return self._at.get(pod) | self._everywhere

    def follow(self, changes: Changes) -> set[ObjectKey]:
        """Look again at what changes may have touched; the policies whose reach is another now."""
        changed, routes = set(), {key for key in changes.objects if key.kind in _ROUTES}
        for policy in {key for key in self._touched(changes) if key.kind in _POLICIES}:
            before = self._known.get(policy)
            if self._update(policy):
                changed.add(policy)
                # Routes are where the policies are that name them, or did so until now.
                for known in filter(None, (before, self._known.get(policy))):
                    routes |= known.routes
        changed |= {route for route in routes if self._update(route)}
        return changed | self._everywhere if self._came_or_went(changes.pods) else changed

    def follow_settings(self) -> set[ObjectKey]:
        """Look again at everything, as the mesh's settings have changed; the policies whose reach is another now."""
        return self.follow(Changes(objects=frozenset(self._known)))

    def _came_or_went(self, pods: AbstractSet[ObjectKey]) -> bool:
        """Whether any of these pods has a sidecar now and had none, or the other way round."""
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
        """The pods whose sidecars a policy concerns, and whether it says anything to any."""
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
        name = f"{policy.metadata.namespace}/{policy.metadata.name}"
        return any(
            limit.name == name or limit.name.startswith(f"{name}/")
            for entry in self._compiler.entries(pod).values()
            if isinstance(entry, Inbound)
            for limit in entry.limits
        )

    def _diverts(self, policy: TrafficSplit | CircuitBreaker) -> bool:
        """Whether it is the one that counts at any port of its Service."""
        catalog, name = self._catalog, f"{policy.metadata.namespace}/{policy.metadata.name}"
        diversions = catalog.policies.splits if isinstance(policy, TrafficSplit) else catalog.policies.breakers
        ends = diversions.services(policy.key)
        service = None if ends is None else catalog.topology.service(ends.root)
        ports = [] if service is None else [ServicePort(service.key, port) for port in service.ports]
        if isinstance(policy, TrafficSplit):
            splits = (split(catalog, port) for port in ports)
            return any(entry is not None and entry.split == name for entry in splits)
        breakers = (breaker(catalog, port) for port in ports)
        return any(entry is not None and entry.breaker == name for entry in breakers)
