"""Rules that admission checks: whether a mesh would refuse the policies if they were applied in their order."""

from __future__ import annotations

from collections.abc import Iterable

from nginx_mesh.admission import POLICY_KINDS, review
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.catalog.policies import limited_destination

from .describedmesh import DescribedMesh
from .rules import (
    DUPLICATE_LIMIT,
    NO_BACKEND,
    NO_BREAKER_SERVICE,
    NO_ROOT,
    UNKNOWN_ROUTE,
    WRONG_FALLBACK,
    Findings,
    Rule,
)

_ROUTES = ("spec.rules[", "spec.matches[")


class _EarlierObjects:
    """All objects of the manifests, except that RateLimits are only those before the one that is reviewed."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self._objects = {obj.key: obj for obj in objects}
        self._limits: list[RateLimit] = []

    def get(self, key: ObjectKey) -> Object | None:
        return self._objects.get(key)

    def limits_of(self, destination: ObjectKey) -> list[RateLimit]:
        return [limit for limit in self._limits if limited_destination(limit) == destination]

    def add(self, obj: Object) -> None:
        if isinstance(obj, RateLimit):
            self._limits.append(obj)


def admission_reviews(mesh: DescribedMesh) -> Findings:
    """Findings about policies that admission refuses, and about references to objects that do not exist."""
    others = _EarlierObjects(mesh.objects)
    for policy in mesh.objects:
        if policy.KIND not in POLICY_KINDS:
            continue
        result = review(policy, None, others)
        others.add(policy)
        rule = WRONG_FALLBACK if isinstance(policy, CircuitBreaker) else DUPLICATE_LIMIT
        for error in result.errors:
            yield rule.at(policy.key, error.field, error.reason)
        refused = {error.field for error in result.errors}
        for warning in result.warnings:
            missing = None if warning.field in refused else _missing(mesh, policy, warning.field)
            if missing is not None:
                yield missing.at(policy.key, warning.field, warning.reason)


def _missing(mesh: DescribedMesh, policy: Object, field: str) -> Rule | None:
    """The rule that a reference to a missing object breaks.

    None when the object may exist outside of the manifests, or when rules about pods cover the reference.
    """
    if field.startswith(_ROUTES):
        return UNKNOWN_ROUTE
    if not mesh.has_services:
        return None
    if isinstance(policy, CircuitBreaker):
        return NO_BREAKER_SERVICE
    if isinstance(policy, TrafficSplit):
        return NO_ROOT if field == "spec.service" else NO_BACKEND
    return None
