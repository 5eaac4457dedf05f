"""Policies that route requests for one Service to other Services: TrafficSplits and CircuitBreakers."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Generic, NamedTuple, TypeVar

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import TrafficSplit

from .multimap import MultiMap
from .references import fallback_key, referenced_key

P = TypeVar("P", bound=Object)


class RoutedServices(NamedTuple):
    """The Services that a routing policy names.

    `root` is the Service that callers dial: a TrafficSplit's root, a CircuitBreaker's destination. `backends` are the
    Services that may answer in its place: a TrafficSplit's backends, a CircuitBreaker's fallback.
    """

    root: ObjectKey
    backends: frozenset[ObjectKey]


class RoutingPolicies(Generic[P]):
    """The policies of one kind, indexed by the Services that they name.

    When several policies have the same root, the oldest one applies; among equally old ones, the first by name.
    """

    def __init__(self, services: Callable[[P], RoutedServices]) -> None:
        self._services = services
        self._policies: dict[ObjectKey, P] = {}
        self._by_root: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._by_backend: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    def keys(self) -> AbstractSet[ObjectKey]:
        """The keys of all policies."""
        return self._policies.keys()

    def get(self, key: ObjectKey) -> P | None:
        """The policy of this key."""
        return self._policies.get(key)

    def services(self, key: ObjectKey) -> RoutedServices | None:
        """The Services that the policy of this key names."""
        policy = self._policies.get(key)
        return None if policy is None else self._services(policy)

    def effective(self, root: ObjectKey) -> P | None:
        """The policy that applies to requests for a Service."""
        return min((self._policies[key] for key in self._by_root.get(root)), key=precedence, default=None)

    def with_root(self, service: ObjectKey) -> AbstractSet[ObjectKey]:
        """The keys of all policies whose root is this Service."""
        return self._by_root.get(service)

    def naming(self, service: ObjectKey) -> AbstractSet[ObjectKey]:
        """The keys of all policies that name a Service as their root or as a backend."""
        return self._by_root.get(service) | self._by_backend.get(service)

    def is_backend(self, service: ObjectKey) -> bool:
        """Whether any policy names this Service as a backend."""
        return bool(self._by_backend.get(service))

    def set(self, key: ObjectKey, policy: P | None) -> None:
        """Store a new or updated policy; None deletes it."""
        before = self.services(key)
        if before is not None:
            del self._policies[key]
            self._by_root.discard(before.root, key)
            for service in before.backends:
                self._by_backend.discard(service, key)
        if policy is not None:
            self._policies[key] = policy
            root, backends = self._services(policy)
            self._by_root.add(root, key)
            for service in backends:
                self._by_backend.add(service, key)


def precedence(policy: Object) -> tuple[str, ObjectKey]:
    """Sort key of policies that conflict: the oldest comes first, then the first by name."""
    return policy.metadata.creation_timestamp, policy.key


def split_services(split: TrafficSplit) -> RoutedServices:
    """A TrafficSplit's root and backends."""
    namespace = split.metadata.namespace
    return RoutedServices(
        ObjectKey(Service.KIND, namespace, split.spec.service),
        frozenset(ObjectKey(Service.KIND, namespace, backend.service) for backend in split.spec.backends),
    )


def breaker_services(breaker: CircuitBreaker) -> RoutedServices:
    """A CircuitBreaker's destination and fallback."""
    fallback = breaker.spec.fallback
    return RoutedServices(
        referenced_key(breaker, breaker.spec.destination),
        frozenset() if fallback is None else frozenset((fallback_key(fallback),)),
    )
