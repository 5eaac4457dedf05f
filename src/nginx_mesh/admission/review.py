"""Reviews an object, given the object that it replaces and all others.

A reference to an object that does not exist is a warning and no error, because objects may be stored in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from nginx_mesh.api import kinds
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.smi import HTTPRouteGroup, TCPRoute, TrafficSplit, TrafficTarget
from nginx_mesh.api.validate import validate
from nginx_mesh.catalog.policies import limited_destination, limited_sources

from .references import missing

K = TypeVar("K")

POLICY_KINDS = frozenset(
    kind.KIND for kind in (TrafficTarget, HTTPRouteGroup, TCPRoute, TrafficSplit, RateLimit, CircuitBreaker)
)
"""The kinds of objects that are reviewed."""


class OtherObjects(Protocol):
    """All stored objects; the one that is reviewed may be among them."""

    def get(self, key: ObjectKey) -> Object | None:
        """The object of this key."""

    def limits_of(self, destination: ObjectKey) -> Iterable[RateLimit]:
        """The RateLimits with this destination."""


@dataclass(frozen=True, slots=True)
class Review:
    """Why an object is refused (`errors`), and what it refers to in vain (`warnings`), by field."""

    errors: list[FieldError] = field(default_factory=list)
    warnings: list[FieldError] = field(default_factory=list)


def review_changes(changes: Mapping[K, tuple[Resource, Resource | None]], others: OtherObjects) -> dict[K, Review]:
    """Judge the policies among objects that are stored together.

    `changes` has each object with the one that it replaces, None when it is new. `others` are all objects as they will
    be, so that none is judged against an object that another replaces. Raises FieldError for what cannot be decoded.
    """
    return {
        name: review(kinds.decode(resource), None if stored is None else kinds.decode(stored), others)
        for name, (resource, stored) in changes.items()
        if resource["kind"] in POLICY_KINDS
    }


def review(obj: Object, old: Object | None, others: OtherObjects) -> Review:
    """Review an object that is to replace `old`.

    A conflict that `old` had already is no reason to refuse the new object: so of several conflicts, users can resolve
    one at a time.
    """
    errors = validate(obj)
    if errors:
        return Review(errors)
    if isinstance(obj, RateLimit):
        errors = list(_limit_conflicts(obj, old if isinstance(old, RateLimit) else None, others))
    elif isinstance(obj, CircuitBreaker) and not (isinstance(old, CircuitBreaker) and old.spec == obj.spec):
        errors = list(_fallback_errors(obj))
    return Review(errors, list(missing(obj, others.get)))


def _limit_conflicts(limit: RateLimit, old: RateLimit | None, others: OtherObjects) -> Iterator[FieldError]:
    destination = limited_destination(limit)
    unchanged = _callers(old) if old is not None and limited_destination(old) == destination else {}
    new = {caller: field for caller, field in _callers(limit).items() if caller not in unchanged}
    for other in sorted(others.limits_of(destination), key=lambda other: other.key):
        if other.key == limit.key:
            continue
        others_callers = _callers(other)
        for caller, where in new.items():
            if caller in others_callers:
                whom = "callers that no policy names" if caller is None else str(caller)
                yield FieldError(where, f"{other.key} limits {whom} at {destination} already")


def _callers(limit: RateLimit) -> dict[ObjectKey | None, str]:
    """The callers that a RateLimit limits, with the field for each; None stands for callers that no RateLimit names."""
    sources = limited_sources(limit)
    if not sources:
        return {None: "spec.destination"}
    return {source: f"spec.sources[{index}]" for index, source in enumerate(sources)}


def _fallback_errors(breaker: CircuitBreaker) -> Iterator[FieldError]:
    destination, fallback = breaker.spec.destination, breaker.spec.fallback
    if fallback is None:
        return
    namespace = destination.namespace or breaker.metadata.namespace
    if fallback.namespace != namespace:
        reason = f'is in namespace "{fallback.namespace}", and the destination in "{namespace}"'
        yield FieldError("spec.fallback.service", reason)
    elif fallback.name == destination.name:
        yield FieldError("spec.fallback.service", "is the destination")
