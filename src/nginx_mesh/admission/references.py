"""The objects that policies refer to, and those of them that do not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit, RateLimitRule
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import HTTPRouteGroup, RouteRule, TrafficSplit, TrafficTarget
from nginx_mesh.catalog.messages import fallback_unusable, no_such_match, no_such_object, no_such_port
from nginx_mesh.catalog.references import fallback_key, referenced_key

Lookup = Callable[[ObjectKey], Object | None]
# Kubernetes creates it in every namespace.
_DEFAULT_ACCOUNT = "default"
_FALLBACK_FIELD = "spec.fallback.service"


def references(policy: Object) -> Iterator[tuple[str, ObjectKey]]:
    """(field, key) of all objects that a policy refers to."""
    own = policy.metadata.namespace
    if isinstance(policy, TrafficTarget):
        yield "spec.destination", referenced_key(policy, policy.spec.destination)
        for index, source in enumerate(policy.spec.sources):
            yield f"spec.sources[{index}]", referenced_key(policy, source)
        for index, rule in enumerate(policy.spec.rules):
            yield f"spec.rules[{index}].name", ObjectKey(rule.kind, own, rule.name)
    elif isinstance(policy, RateLimit):
        yield "spec.destination", referenced_key(policy, policy.spec.destination)
        for index, workload in enumerate(policy.spec.sources):
            yield f"spec.sources[{index}]", referenced_key(policy, workload)
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
        yield "spec.destination", referenced_key(policy, destination)
        if fallback is not None:
            yield _FALLBACK_FIELD, fallback_key(fallback)


def missing(policy: Object, lookup: Lookup) -> Iterator[FieldError]:
    """An error for each object, match of an HTTPRouteGroup and port of a fallback that a policy names in vain."""
    for field, key in references(policy):
        if lookup(key) is None and not (key.kind == "ServiceAccount" and key.name == _DEFAULT_ACCOUNT):
            reason = no_such_object(key)
            yield FieldError(field, fallback_unusable(reason) if field == _FALLBACK_FIELD else reason)
    if isinstance(policy, TrafficTarget | RateLimit):
        rules: Sequence[RouteRule | RateLimitRule] = policy.spec.rules
        for index, rule in enumerate(rules):
            group = lookup(ObjectKey(rule.kind, policy.metadata.namespace, rule.name))
            if isinstance(group, HTTPRouteGroup):
                yield from _missing_matches(f"spec.rules[{index}].matches", group, rule.matches)
    if isinstance(policy, CircuitBreaker) and (fallback := policy.spec.fallback) is not None:
        service = lookup(fallback_key(fallback))
        if isinstance(service, Service):
            ports = {port.port for port in service.spec.ports if port.protocol == "TCP"}
            if fallback.port not in ports:
                yield FieldError("spec.fallback.port", fallback_unusable(no_such_port(service.key, fallback.port)))


def _missing_matches(field: str, group: HTTPRouteGroup, names: Sequence[str]) -> Iterator[FieldError]:
    known = {match.name for match in group.spec.matches}
    for name in names:
        if name not in known:
            yield FieldError(field, no_such_match(group.metadata.name, name))
