"""Warnings about objects in the catalog that do not do all that they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nginx_mesh.api.annotations import NO_PEER_OF_PODS, PEER_SPIFFE_ID, check_pod, check_service
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import RateLimit
from nginx_mesh.api.smi import TrafficTarget
from nginx_mesh.api.values import parse_delay, parse_rate
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.policies import limited_destination

from .breakers import breaker_problems
from .limits import limited_pairs
from .routes import resolve
from .splits import split_problems


@dataclass(frozen=True, slots=True)
class ObjectWarning:
    """A field of an object that is ignored or has no effect, and why."""

    object: ObjectKey
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.object}: {self.field}: {self.reason}"


def check(catalog: Catalog, key: ObjectKey) -> tuple[ObjectWarning, ...]:
    """The warnings about one object; none when it does not exist."""
    return tuple(ObjectWarning(key, field, reason) for field, reason in _problems(catalog, key))


def _problems(catalog: Catalog, key: ObjectKey) -> Iterator[tuple[str, str]]:
    pod = catalog.topology.pod(key)
    if pod is not None:
        for error in check_pod(pod.labels, pod.annotations):
            yield f"metadata.{error.field}", error.reason
    service = catalog.topology.service(key)
    if service is not None:
        for error in check_service(service.annotations):
            yield f"metadata.{error.field}", error.reason
        if PEER_SPIFFE_ID in service.annotations and not service.remote:
            yield f"metadata.annotations[{PEER_SPIFFE_ID}]", NO_PEER_OF_PODS
    target = catalog.policies.target(key)
    if target is not None:
        yield from _target_problems(catalog, target)
    limit = catalog.policies.limit(key)
    if limit is not None:
        yield from _limit_problems(catalog, limit)
    split = catalog.policies.splits.get(key)
    if split is not None:
        yield from split_problems(catalog, split)
    breaker = catalog.policies.breakers.get(key)
    if breaker is not None:
        yield from breaker_problems(catalog, breaker)


def _target_problems(catalog: Catalog, target: TrafficTarget) -> Iterator[tuple[str, str]]:
    if not target.spec.sources:
        yield "spec.sources", "is empty: nobody is granted anything"
    yield from resolve(catalog.policies, target.metadata.namespace, target.spec.rules).problems


def _limit_problems(catalog: Catalog, limit: RateLimit) -> Iterator[tuple[str, str]]:
    try:
        parse_rate(limit.spec.rate)
    except FieldError as error:
        yield "spec.rate", error.reason
    try:
        parse_delay(limit.spec.delay)
    except FieldError as error:
        yield "spec.delay", error.reason
    yield from resolve(catalog.policies, limit.metadata.namespace, limit.spec.rules).problems
    for other in catalog.policies.limits_of((limited_destination(limit),)):
        if other.key == limit.key:
            return
        for destination, source in sorted(limited_pairs(limit) & limited_pairs(other), key=str):
            whom = "other callers" if source is None else str(source)
            yield "spec.sources", f"{other.key} limits {whom} at {destination} already"
