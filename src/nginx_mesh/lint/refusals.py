"""What admission says of policies: the same that a mesh would say if they were applied in their order."""

from __future__ import annotations

from collections.abc import Iterable

from nginx_mesh.admission import POLICIES, review
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.catalog.policies import limited_destination

from .rules import BREAKS_NOTHING, LIMITED_TWICE, NO_BACKEND, NO_ROOT, UNKNOWN_ROUTE, WRONG_FALLBACK, Findings, Rule
from .world import World

_ROUTES = ("spec.rules[", "spec.matches[")


class _Given:
    """All objects, but of RateLimits only those that come before the one in question."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self._objects = {obj.key: obj for obj in objects}
        self._limits: list[RateLimit] = []

    def get(self, key: ObjectKey) -> Object | None:
        return self._objects.get(key)

    def limits_of(self, destination: ObjectKey) -> list[RateLimit]:
        return [limit for limit in self._limits if limited_destination(limit) == destination]

    def stored(self, obj: Object) -> None:
        if isinstance(obj, RateLimit):
            self._limits.append(obj)


def refusals(world: World) -> Findings:
    """Of all policies: why they are refused, and what they name that is not given."""
    given = _Given(world.objects)
    for policy in world.objects:
        if policy.KIND not in POLICIES:
            continue
        verdict = review(policy, None, given)
        given.stored(policy)
        rule = WRONG_FALLBACK if isinstance(policy, CircuitBreaker) else LIMITED_TWICE
        for error in verdict.errors:
            yield rule.at(policy.key, error.field, error.reason)
        refused = {error.field for error in verdict.errors}
        for warning in verdict.warnings:
            missing = None if warning.field in refused else _missing(world, policy, warning.field)
            if missing is not None:
                yield missing.at(policy.key, warning.field, warning.reason)


def _missing(world: World, policy: Object, field: str) -> Rule | None:
    """The rule for a reference that leads nowhere; None where what else is there cannot be told, or is told by pods."""
    if field.startswith(_ROUTES):
        return UNKNOWN_ROUTE
    if not world.has_services:
        return None
    if isinstance(policy, CircuitBreaker):
        return BREAKS_NOTHING
    if isinstance(policy, TrafficSplit):
        return NO_ROOT if field == "spec.service" else NO_BACKEND
    return None
