"""Traffic policies, indexed by the pods and Services that they apply to and by the objects that they refer to."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.smi import HTTPRouteGroup, TCPRoute, TrafficSplit, TrafficTarget

from .changes import union
from .multimap import MultiMap
from .references import referenced_key
from .routing import RoutedServices, RoutingPolicies, breaker_services, precedence, split_services

Account = tuple[str, str]  # namespace, ServiceAccount
_Policy = TrafficTarget | RateLimit
_Route = HTTPRouteGroup | TCPRoute


@dataclass(frozen=True, slots=True)
class PolicyChanges:
    """What a change of a policy affects.

    `accounts`: accounts whose pods have TrafficTargets that changed. `destinations`: Services, workloads and pods whose
    rate limits changed. `sources`: those that RateLimits name, or named, as sources.
    `splits`, `breakers`: Services to which another TrafficSplit or CircuitBreaker may apply. `roots`, `backends`:
    Services that a TrafficSplit or CircuitBreaker has newly got, or has no longer, as its root or as a backend.
    `objects`: objects to be checked again.
    """

    accounts: frozenset[Account] = frozenset()
    destinations: frozenset[ObjectKey] = frozenset()
    sources: frozenset[ObjectKey] = frozenset()
    splits: frozenset[ObjectKey] = frozenset()
    breakers: frozenset[ObjectKey] = frozenset()
    roots: frozenset[ObjectKey] = frozenset()
    backends: frozenset[ObjectKey] = frozenset()
    objects: frozenset[ObjectKey] = frozenset()


class Policies:
    """TrafficTargets, RateLimits, TrafficSplits (`splits`), CircuitBreakers (`breakers`), and the routes they name."""

    def __init__(self) -> None:
        self.splits: RoutingPolicies[TrafficSplit] = RoutingPolicies(split_services)
        self.breakers: RoutingPolicies[CircuitBreaker] = RoutingPolicies(breaker_services)
        self._targets: dict[ObjectKey, TrafficTarget] = {}
        self._limits: dict[ObjectKey, RateLimit] = {}
        self._routes: dict[ObjectKey, _Route] = {}
        self._targets_of: MultiMap[Account, ObjectKey] = MultiMap()
        self._limits_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._limits_by_source: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._policies_by_route: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    def keys(self) -> set[ObjectKey]:
        """The keys of all policies and routes."""
        return {*self._targets, *self._limits, *self._routes, *self.splits.keys(), *self.breakers.keys()}

    def target(self, key: ObjectKey) -> TrafficTarget | None:
        """The TrafficTarget of this key."""
        return self._targets.get(key)

    def limit(self, key: ObjectKey) -> RateLimit | None:
        """The RateLimit of this key."""
        return self._limits.get(key)

    def route(self, key: ObjectKey) -> HTTPRouteGroup | TCPRoute | None:
        """The HTTPRouteGroup or TCPRoute of this key."""
        return self._routes.get(key)

    def naming(self, route: ObjectKey) -> AbstractSet[ObjectKey]:
        """The policies that name a route, whether the route exists or not."""
        return self._policies_by_route.get(route)

    def targets_of(self, account: Account) -> list[TrafficTarget]:
        """The TrafficTargets whose destination is this account, in order of precedence."""
        return sorted((self._targets[key] for key in self._targets_of.get(account)), key=precedence)

    def limits_of(self, references: Iterable[ObjectKey]) -> list[RateLimit]:
        """The RateLimits whose destination is any of these, in order of precedence."""
        keys = {key for reference in references for key in self._limits_of.get(reference)}
        return sorted((self._limits[key] for key in keys), key=precedence)

    def is_limited_source(self, reference: ObjectKey) -> bool:
        """Whether any RateLimit names this as a source."""
        return bool(self._limits_by_source.get(reference))

    def affected_by_source(self, reference: ObjectKey) -> PolicyChanges:
        """What is affected when the pods behind a source of RateLimits change."""
        return union(PolicyChanges(), *map(self._affected, self._limits_by_source.get(reference)))

    def set(self, key: ObjectKey, policy: Object | None) -> PolicyChanges:
        """Store a new or updated policy or route; None deletes it. Objects of other kinds affect nothing."""
        if key.kind in (HTTPRouteGroup.KIND, TCPRoute.KIND):
            return self._set_route(key, policy if isinstance(policy, _Route) else None)
        if key.kind not in (TrafficTarget.KIND, RateLimit.KIND, TrafficSplit.KIND, CircuitBreaker.KIND):
            return PolicyChanges()
        before, routed_before = self._affected(key), self._routed_services(key)
        self._remove(key)
        if isinstance(policy, TrafficTarget):
            self._targets[key] = policy
            self._targets_of.add(destination_account(policy), key)
        elif isinstance(policy, RateLimit):
            self._limits[key] = policy
            self._limits_of.add(limited_destination(policy), key)
            for source in limited_sources(policy):
                self._limits_by_source.add(source, key)
        elif isinstance(policy, TrafficSplit):
            self.splits.set(key, policy)
        elif isinstance(policy, CircuitBreaker):
            self.breakers.set(key, policy)
        for route in routes_of(policy):
            self._policies_by_route.add(route, key)
        itself = PolicyChanges(objects=frozenset((key,)))
        rerouted = _rerouted(routed_before, self._routed_services(key))
        return union(before, self._affected(key), rerouted, itself)

    def _set_route(self, key: ObjectKey, route: _Route | None) -> PolicyChanges:
        if self._routes.get(key) == route:
            return PolicyChanges()
        if route is None:
            del self._routes[key]
        else:
            self._routes[key] = route
        policies = self._policies_by_route.get(key)
        return union(PolicyChanges(objects=frozenset((key, *policies))), *map(self._affected, policies))

    def _remove(self, key: ObjectKey) -> None:
        target, limit, split = self._targets.pop(key, None), self._limits.pop(key, None), self.splits.get(key)
        if target is not None:
            self._targets_of.discard(destination_account(target), key)
        if limit is not None:
            self._limits_of.discard(limited_destination(limit), key)
            for source in limited_sources(limit):
                self._limits_by_source.discard(source, key)
        self.splits.set(key, None)
        self.breakers.set(key, None)
        for route in routes_of(target or limit or split):
            self._policies_by_route.discard(route, key)

    def _routed_services(self, key: ObjectKey) -> RoutedServices | None:
        return self.splits.services(key) or self.breakers.services(key)

    def _affected(self, key: ObjectKey) -> PolicyChanges:
        target, limit = self._targets.get(key), self._limits.get(key)
        if target is not None:
            return PolicyChanges(accounts=frozenset((destination_account(target),)))
        if limit is not None:
            destination = limited_destination(limit)
            return PolicyChanges(
                destinations=frozenset((destination,)),
                sources=frozenset(limited_sources(limit)),
                objects=frozenset(self._limits_of.get(destination)),
            )
        split, breaker = self.splits.services(key), self.breakers.services(key)
        if split is not None:
            return PolicyChanges(splits=frozenset((split.root,)), objects=frozenset(self.splits.with_root(split.root)))
        if breaker is not None:
            return PolicyChanges(
                breakers=frozenset((breaker.root,)), objects=frozenset(self.breakers.with_root(breaker.root))
            )
        return PolicyChanges()


def destination_account(target: TrafficTarget) -> Account:
    """The account whose pods a TrafficTarget protects."""
    key = referenced_key(target, target.spec.destination)
    return key.namespace, key.name


def limited_destination(limit: RateLimit) -> ObjectKey:
    """The Service, workload or pod that a RateLimit protects."""
    return referenced_key(limit, limit.spec.destination)


def limited_sources(limit: RateLimit) -> list[ObjectKey]:
    """The sources that a RateLimit names, in its order, each once."""
    return list(dict.fromkeys(referenced_key(limit, source) for source in limit.spec.sources))


def routes_of(policy: Object | None) -> set[ObjectKey]:
    """The HTTPRouteGroups and TCPRoutes that a policy names."""
    if isinstance(policy, TrafficSplit):
        return {ObjectKey(match.kind, policy.metadata.namespace, match.name) for match in policy.spec.matches}
    if not isinstance(policy, _Policy):
        return set()
    return {ObjectKey(rule.kind, policy.metadata.namespace, rule.name) for rule in policy.spec.rules}


def _rerouted(before: RoutedServices | None, after: RoutedServices | None) -> PolicyChanges:
    """The Services that only one of the two names as its root, or as a backend."""
    return PolicyChanges(roots=_roots(before) ^ _roots(after), backends=_backends(before) ^ _backends(after))


def _roots(services: RoutedServices | None) -> frozenset[ObjectKey]:
    return frozenset() if services is None else frozenset((services.root,))


def _backends(services: RoutedServices | None) -> frozenset[ObjectKey]:
    return frozenset() if services is None else services.backends
