"""What policies speak of, and what of it is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nginx_mesh.api.core import Service
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit, RateLimitRule, WorkloadReference
from nginx_mesh.api.smi import HTTPRouteGroup, RouteRule, Subject, TrafficSplit, TrafficTarget
from nginx_mesh.catalog.messages import absent, no_fallback, without_match, without_port

Lookup = Callable[[ObjectKey], Object | None]
_Reference = tuple[str, ObjectKey]
_ALWAYS_THERE = "default"
_FALLBACK = "spec.fallback.service"


def references(policy: Object) -> Iterator[_Reference]:
    """(field, key) of everything that a policy names."""
    own = policy.metadata.namespace
    if isinstance(policy, TrafficTarget):
        yield "spec.destination", _account(policy.spec.destination, own)
        for index, source in enumerate(policy.spec.sources):
            yield f"spec.sources[{index}]", _account(source, own)
        for index, rule in enumerate(policy.spec.rules):
            yield f"spec.rules[{index}].name", ObjectKey(rule.kind, own, rule.name)
    elif isinstance(policy, RateLimit):
        yield "spec.destination", _workload(policy.spec.destination, own)
        for index, workload in enumerate(policy.spec.sources):
            yield f"spec.sources[{index}]", _workload(workload, own)
        for index, group in enumerate(policy.spec.rules):
            yield f"spec.rules[{index}].name", ObjectKey(group.kind, own, group.name)
    elif isinstance(policy, TrafficSplit):
        yield "spec.service", ObjectKey(Service.KIND, own, policy.spec.service)
        for index, backend in enumerate(policy.spec.backends):
            yield f"spec.backends[{index}].service", ObjectKey(Service.KIND, own, backend.service)
        for index, match in enumerate(policy.spec.matches):
            yield f"spec.matches[{index}].name", ObjectKey(match.kind, own, match.name)
    elif isinstance(policy, CircuitBreaker):
        destination, fallback = policy.spec.destination, policy.spec.fallback
        yield "spec.destination", ObjectKey(Service.KIND, destination.namespace or own, destination.name)
        if fallback is not None:
            yield _FALLBACK, ObjectKey(Service.KIND, fallback.namespace, fallback.name)


def missing(policy: Object, lookup: Lookup) -> Iterator[FieldError]:
    """What a policy names and is not there: objects, matches of route groups, the fallback's port."""
    for field, key in references(policy):
        if lookup(key) is None and not (key.kind == "ServiceAccount" and key.name == _ALWAYS_THERE):
            yield FieldError(field, no_fallback(absent(key)) if field == _FALLBACK else absent(key))
    if isinstance(policy, TrafficTarget | RateLimit):
        rules: Sequence[RouteRule | RateLimitRule] = policy.spec.rules
        for index, rule in enumerate(rules):
            group = lookup(ObjectKey(rule.kind, policy.metadata.namespace, rule.name))
            if isinstance(group, HTTPRouteGroup):
                yield from _missing_matches(f"spec.rules[{index}].matches", group, rule.matches)
    if isinstance(policy, CircuitBreaker) and (fallback := policy.spec.fallback) is not None:
        service = lookup(ObjectKey(Service.KIND, fallback.namespace, fallback.name))
        if isinstance(service, Service):
            ports = {port.port for port in service.spec.ports if port.protocol == "TCP"}
            if fallback.port not in ports:
                yield FieldError("spec.fallback.port", no_fallback(without_port(service.key, fallback.port)))


def _missing_matches(field: str, group: HTTPRouteGroup, names: Sequence[str]) -> Iterator[FieldError]:
    known = {match.name for match in group.spec.matches}
    for name in names:
        if name not in known:
            yield FieldError(field, without_match(group.metadata.name, name))


def _account(subject: Subject, own: str) -> ObjectKey:
    return ObjectKey(subject.kind, subject.namespace or own, subject.name)


def _workload(reference: WorkloadReference, own: str) -> ObjectKey:
    return ObjectKey(reference.kind, reference.namespace or own, reference.name)
