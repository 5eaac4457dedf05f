"""Traffic policies, indexed by what they apply to and what they refer to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.smi import HTTPRouteGroup, TCPRoute, TrafficSplit, TrafficTarget

from .multimap import MultiMap
from .routing import Diversions, Ends, breaker_ends, seniority, split_ends

Account = tuple[str, str]  # namespace, ServiceAccount
_Policy = TrafficTarget | RateLimit
_Route = HTTPRouteGroup | TCPRoute


@dataclass(frozen=True, slots=True)
class Affected:
    """Whom a policy's change concerns: pods by account, by reference; sources of rate limits; objects to check.

    `splits` and `breakers` are Services at which one that counts may be another now; `starts` and `targets` Services
    that were, or were not, at that end of a split or breaker before.
    """

    accounts: frozenset[Account] = frozenset()
    destinations: frozenset[ObjectKey] = frozenset()
    sources: frozenset[ObjectKey] = frozenset()
    splits: frozenset[ObjectKey] = frozenset()
    breakers: frozenset[ObjectKey] = frozenset()
    starts: frozenset[ObjectKey] = frozenset()
    targets: frozenset[ObjectKey] = frozenset()
    objects: frozenset[ObjectKey] = frozenset()


class Policies:
    """TrafficTargets, RateLimits, `splits` and `breakers`, and the routes they name."""

    def __init__(self) -> None:
        self.splits: Diversions[TrafficSplit] = Diversions(split_ends)
        self.breakers: Diversions[CircuitBreaker] = Diversions(breaker_ends)
        self._targets: dict[ObjectKey, TrafficTarget] = {}
        self._limits: dict[ObjectKey, RateLimit] = {}
        self._routes: dict[ObjectKey, _Route] = {}
        self._targets_of: MultiMap[Account, ObjectKey] = MultiMap()
        self._limits_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._limits_by_source: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._policies_by_route: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    def keys(self) -> set[ObjectKey]:
        """Keys of everything here."""
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
        """The policies that name a route, whether it is there or not."""
        return self._policies_by_route.get(route)

    def targets_of(self, account: Account) -> list[TrafficTarget]:
        """TrafficTargets whose destination is this account, the oldest first, then by name."""
        return sorted((self._targets[key] for key in self._targets_of.get(account)), key=seniority)

    def limits_of(self, references: Iterable[ObjectKey]) -> list[RateLimit]:
        """RateLimits whose destination is any of these, the oldest first, then by name."""
        keys = {key for reference in references for key in self._limits_of.get(reference)}
        return sorted((self._limits[key] for key in keys), key=seniority)

    def limited_by_source(self, reference: ObjectKey) -> bool:
        """Whether any RateLimit names this as a source."""
        return bool(self._limits_by_source.get(reference))

    def affected_by_source(self, reference: ObjectKey) -> Affected:
        """Whom it concerns that the pods of a source have changed."""
        return _merged(self._affected(key) for key in self._limits_by_source.get(reference))

    def set(self, key: ObjectKey, policy: Object | None) -> Affected:
        """A policy or route has come, changed or (None) gone. Other kinds concern nobody."""
        if key.kind in (HTTPRouteGroup.KIND, TCPRoute.KIND):
            return self._set_route(key, policy if isinstance(policy, _Route) else None)
        if key.kind not in (TrafficTarget.KIND, RateLimit.KIND, TrafficSplit.KIND, CircuitBreaker.KIND):
            return Affected()
        before, ends = self._affected(key), self._ends(key)
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
        itself = Affected(objects=frozenset((key,)))
        return _merged((before, self._affected(key), _moved(ends, self._ends(key)), itself))

    def _set_route(self, key: ObjectKey, route: _Route | None) -> Affected:
        if self._routes.get(key) == route:
            return Affected()
        if route is None:
            del self._routes[key]
        else:
            self._routes[key] = route
        policies = self._policies_by_route.get(key)
        return _merged((*map(self._affected, policies), Affected(objects=frozenset((key, *policies)))))

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

    def _ends(self, key: ObjectKey) -> Ends | None:
        return self.splits.ends(key) or self.breakers.ends(key)

    def _affected(self, key: ObjectKey) -> Affected:
        target, limit = self._targets.get(key), self._limits.get(key)
        if target is not None:
            return Affected(accounts=frozenset((destination_account(target),)))
        if limit is not None:
            destination = limited_destination(limit)
            return Affected(
                destinations=frozenset((destination,)),
                sources=frozenset(limited_sources(limit)),
                objects=frozenset(self._limits_of.get(destination)),
            )
        split, breaker = self.splits.ends(key), self.breakers.ends(key)
        if split is not None:
            return Affected(splits=frozenset((split.start,)), objects=frozenset(self.splits.rivals(split.start)))
        if breaker is not None:
            return Affected(
                breakers=frozenset((breaker.start,)), objects=frozenset(self.breakers.rivals(breaker.start))
            )
        return Affected()


def destination_account(target: TrafficTarget) -> Account:
    """The account whose pods a TrafficTarget protects."""
    destination = target.spec.destination
    return destination.namespace or target.metadata.namespace, destination.name


def limited_destination(limit: RateLimit) -> ObjectKey:
    """What a RateLimit protects."""
    destination = limit.spec.destination
    return ObjectKey(destination.kind, destination.namespace or limit.metadata.namespace, destination.name)


def limited_sources(limit: RateLimit) -> list[ObjectKey]:
    """Whom a RateLimit names, each once, in its order."""
    sources = (
        ObjectKey(source.kind, source.namespace or limit.metadata.namespace, source.name)
        for source in limit.spec.sources
    )
    return list(dict.fromkeys(sources))


def _moved(before: Ends | None, after: Ends | None) -> Affected:
    ends = [each for each in (before, after) if each is not None]
    starts = Counter(each.start for each in ends)
    targets = Counter(target for each in ends for target in each.targets)
    return Affected(starts=_once(starts), targets=_once(targets))


def _once(counted: Counter[ObjectKey]) -> frozenset[ObjectKey]:
    return frozenset(key for key, times in counted.items() if times == 1)


def routes_of(policy: Object | None) -> set[ObjectKey]:
    """The HTTPRouteGroups and TCPRoutes that a policy names."""
    if isinstance(policy, TrafficSplit):
        return {ObjectKey(match.kind, policy.metadata.namespace, match.name) for match in policy.spec.matches}
    if not isinstance(policy, _Policy):
        return set()
    return {ObjectKey(rule.kind, policy.metadata.namespace, rule.name) for rule in policy.spec.rules}


def _merged(parts: Iterable[Affected]) -> Affected:
    parts = tuple(parts)
    return Affected(
        accounts=frozenset().union(*(part.accounts for part in parts)),
        destinations=frozenset().union(*(part.destinations for part in parts)),
        sources=frozenset().union(*(part.sources for part in parts)),
        splits=frozenset().union(*(part.splits for part in parts)),
        breakers=frozenset().union(*(part.breakers for part in parts)),
        starts=frozenset().union(*(part.starts for part in parts)),
        targets=frozenset().union(*(part.targets for part in parts)),
        objects=frozenset().union(*(part.objects for part in parts)),
    )
