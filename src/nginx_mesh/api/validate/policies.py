"""The mesh's own resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import FieldError, join, step
from ..names import http_token, label_name, port_number, subdomain_name
from ..nsm import CircuitBreaker, MeshConfig, MeshConfigClass, RateLimit, WorkloadReference
from ..pcre2 import pattern_fault
from ..settings import MeshSettings
from ..smi import HTTPMatch, HTTPRouteGroup, Subject, TrafficSplit, TrafficTarget
from ..values import parse_delay, parse_rate
from .checks import Errors, at, at_least, at_most, must, unique

T = TypeVar("T")

# What a sidecar keeps in 32 bits.
_MOST = 1 << 31
_MAX_ERRORS = 10_000
# Milliseconds are kept in 31 bits.
_MAX_TIMEOUT_SECONDS = (_MOST - 1) // 1000


def traffic_target(target: TrafficTarget) -> Errors:
    """A TrafficTarget's spec."""
    yield from at("destination", _subject(target.spec.destination))
    for index, source in enumerate(target.spec.sources):
        yield from at(f"sources[{index}]", _subject(source))
    for index, rule in enumerate(target.spec.rules):
        path = f"rules[{index}]"
        yield from must(f"{path}.name", subdomain_name(rule.name))
        if rule.kind == "TCPRoute" and rule.matches:
            yield FieldError(f"{path}.matches", "a TCPRoute has no matches")


def http_route_group(group: HTTPRouteGroup) -> Errors:
    """An HTTPRouteGroup's spec."""
    matches = group.spec.matches
    yield from unique("matches", ((f"[{index}].name", match.name) for index, match in enumerate(matches)))
    for index, match in enumerate(matches):
        yield from at(f"matches[{index}]", _match(match))


def traffic_split(split: TrafficSplit) -> Errors:
    """A TrafficSplit's spec."""
    spec = split.spec
    yield from must("service", label_name(spec.service))
    if not spec.backends:
        yield FieldError("backends", "must have at least one backend")
    yield from unique("backends", ((f"[{index}].service", one.service) for index, one in enumerate(spec.backends)))
    for index, backend in enumerate(spec.backends):
        yield from must(f"backends[{index}].service", label_name(backend.service))
        yield from at_least(f"backends[{index}].weight", backend.weight, 0)
        yield from at_most(f"backends[{index}].weight", backend.weight, _MOST)
    for index, match in enumerate(spec.matches):
        yield from must(f"matches[{index}].name", subdomain_name(match.name))
        if match.api_group not in ("", "specs.smi-spec.io"):
            yield FieldError(f"matches[{index}].apiGroup", f'"{match.api_group}" is not specs.smi-spec.io')


def rate_limit(limit: RateLimit) -> Errors:
    """A RateLimit's spec."""
    spec = limit.spec
    yield from at("destination", _workload(spec.destination))
    for index, source in enumerate(spec.sources):
        yield from at(f"sources[{index}]", _workload(source))
    own = limit.metadata.namespace
    yield from unique(
        "sources",
        ((f"[{index}]", (one.kind, one.namespace or own, one.name)) for index, one in enumerate(spec.sources)),
    )
    if not spec.name:
        yield FieldError("name", "is required")
    yield from _parses("rate", parse_rate, spec.rate)
    yield from at_least("burst", spec.burst, 0)
    yield from at_most("burst", spec.burst, _MOST - 1)
    yield from _parses("delay", parse_delay, spec.delay)
    if isinstance(spec.delay, int):
        yield from at_most("delay", spec.delay, _MOST - 1)
    for index, rule in enumerate(spec.rules):
        yield from must(f"rules[{index}].name", subdomain_name(rule.name))


def circuit_breaker(breaker: CircuitBreaker) -> Errors:
    """A CircuitBreaker's spec."""
    spec = breaker.spec
    yield from must("destination.name", label_name(spec.destination.name))
    if spec.destination.namespace:
        yield from must("destination.namespace", label_name(spec.destination.namespace))
    yield from at_least("errors", spec.errors, 1)
    yield from at_most("errors", spec.errors, _MAX_ERRORS)
    yield from at_least("timeoutSeconds", spec.timeout_seconds, 1)
    yield from at_most("timeoutSeconds", spec.timeout_seconds, _MAX_TIMEOUT_SECONDS)
    if spec.fallback is not None:
        for part in (spec.fallback.namespace, spec.fallback.name):
            if label_name(part) is not None:
                reason = f'"{spec.fallback.service}" is neither NAMESPACE/NAME nor the NAME of a Service'
                yield FieldError("fallback.service", reason)
                break
        yield from must("fallback.port", port_number(spec.fallback.port))


def mesh_config(config: MeshConfig) -> Errors:
    """A MeshConfig's spec."""
    if not config.spec.mesh_config_class_name:
        yield FieldError("meshConfigClassName", "is required")
    try:
        MeshSettings().with_config(config)
    except FieldError as error:
        yield FieldError(error.field.removeprefix("spec."), error.reason)


def mesh_config_class(config_class: MeshConfigClass) -> Errors:
    """A MeshConfigClass's spec."""
    if not config_class.spec.controller_name:
        yield FieldError("controllerName", "is required")


def _subject(subject: Subject) -> Errors:
    yield from must("name", subdomain_name(subject.name))
    if subject.namespace:
        yield from must("namespace", label_name(subject.namespace))
    if subject.port is not None:
        yield from must("port", port_number(subject.port))


def _workload(reference: WorkloadReference) -> Errors:
    yield from must("name", subdomain_name(reference.name))
    if reference.namespace:
        yield from must("namespace", label_name(reference.namespace))


def _match(match: HTTPMatch) -> Errors:
    if not match.name:
        yield FieldError("name", "is required")
    yield from must("pathRegex", pattern_fault(match.path_pattern))
    for index, method in enumerate(match.methods):
        yield from must(f"methods[{index}]", http_token(method))
    yield from unique("headers", ((step(name), name.lower()) for name in match.headers))
    for name, pattern in match.headers.items():
        path = join("headers", step(name))
        yield from must(path, http_token(name))
        yield from must(path, pattern_fault(pattern))


def _parses(field: str, parse: Callable[[T], object], value: T) -> Errors:
    try:
        parse(value)
    except FieldError as error:
        yield error.within(field)
