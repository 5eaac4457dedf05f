"""Policies that send what is meant for one Service to others, indexed by both ends."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Generic, NamedTuple, TypeVar

from nginx_mesh.api.core import Service
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker
from nginx_mesh.api.smi import TrafficSplit

from .multimap import MultiMap

P = TypeVar("P", bound=Object)


class Ends(NamedTuple):
    """The Service that callers dial, and those that may answer in its place."""

    start: ObjectKey
    targets: frozenset[ObjectKey]


class Diversions(Generic[P]):
    """The policies of one kind. Of several that start at one Service, the oldest counts."""

    def __init__(self, ends: Callable[[P], Ends]) -> None:
        self._ends = ends
        self._policies: dict[ObjectKey, P] = {}
        self._from: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._to: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    def keys(self) -> AbstractSet[ObjectKey]:
        """Keys of all of them."""
        return self._policies.keys()

    def get(self, key: ObjectKey) -> P | None:
        """The policy of this key."""
        return self._policies.get(key)

    def ends(self, key: ObjectKey) -> Ends | None:
        """The ends of the policy of this key."""
        policy = self._policies.get(key)
        return None if policy is None else self._ends(policy)

    def at(self, service: ObjectKey) -> P | None:
        """The policy that counts for calls to a Service: the oldest, then the first by name."""
        return min((self._policies[key] for key in self._from.get(service)), key=seniority, default=None)

    def rivals(self, service: ObjectKey) -> AbstractSet[ObjectKey]:
        """Keys of all policies that start at a Service."""
        return self._from.get(service)

    def naming(self, service: ObjectKey) -> AbstractSet[ObjectKey]:
        """Keys of all policies that have a Service at either end."""
        return self._from.get(service) | self._to.get(service)

    def leads_to(self, service: ObjectKey) -> bool:
        """Whether any policy may send requests to a Service in place of another."""
        return bool(self._to.get(service))

    def set(self, key: ObjectKey, policy: P | None) -> None:
        """The policy has come, changed or (None) gone."""
        before = self.ends(key)
        if before is not None:
            del self._policies[key]
            self._from.discard(before.start, key)
            for service in before.targets:
                self._to.discard(service, key)
        if policy is not None:
            self._policies[key] = policy
            start, targets = self._ends(policy)
            self._from.add(start, key)
            for service in targets:
                self._to.add(service, key)


def seniority(policy: Object) -> tuple[str, ObjectKey]:
    """Order in which policies are considered."""
    return policy.metadata.creation_timestamp, policy.key


def split_ends(split: TrafficSplit) -> Ends:
    """A TrafficSplit's root and backends."""
    namespace = split.metadata.namespace
    return Ends(
        ObjectKey(Service.KIND, namespace, split.spec.service),
        frozenset(ObjectKey(Service.KIND, namespace, backend.service) for backend in split.spec.backends),
    )


def breaker_ends(breaker: CircuitBreaker) -> Ends:
    """A CircuitBreaker's destination and fallback."""
    spec = breaker.spec
    fallback = spec.fallback
    return Ends(
        ObjectKey(Service.KIND, spec.destination.namespace or breaker.metadata.namespace, spec.destination.name),
        frozenset() if fallback is None else frozenset((ObjectKey(Service.KIND, fallback.namespace, fallback.name),)),
    )
