"""Compiles CircuitBreakers. When several have the same destination, the oldest one applies.

Each port of the Service has a circuit of its own. Without a usable fallback, callers are refused while it is open.
"""

from __future__ import annotations

from collections.abc import Iterator

from nginx_mesh.api.nsm import CircuitBreaker, Fallback
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import ServicePort
from nginx_mesh.catalog.messages import fallback_unusable, no_such_object, no_such_port
from nginx_mesh.catalog.references import fallback_key
from nginx_mesh.catalog.routing import breaker_services
from nginx_mesh.compile.keys import cluster_name
from nginx_mesh.protocol.state import Breaker

_MAX_ERRORS = 10_000
_MAX_TIMEOUT_MS = (1 << 31) - 1


def breaker(catalog: Catalog, port: ServicePort) -> Breaker | None:
    """The circuit breaker of a Service's port, None when it has none or when the policy's numbers are below 1."""
    policy, service = catalog.policies.breakers.effective(port.service), catalog.topology.service(port.service)
    if policy is None or service is None or port.port not in service.ports:
        return None
    spec = policy.spec
    if spec.errors < 1 or spec.timeout_seconds < 1:
        return None
    return Breaker(
        breaker=policy.key.namespaced_name,
        errors=min(spec.errors, _MAX_ERRORS),
        timeout_ms=min(spec.timeout_seconds * 1000, _MAX_TIMEOUT_MS),
        fallback=""
        if spec.fallback is None or _fallback_problem(catalog, policy, spec.fallback) is not None
        else cluster_name(ServicePort(fallback_key(spec.fallback), spec.fallback.port)),
    )


def breaker_problems(catalog: Catalog, policy: CircuitBreaker) -> Iterator[tuple[str, str]]:
    """(field, reason) of everything in a CircuitBreaker that has no effect or another one than written."""
    spec, key = policy.spec, breaker_services(policy).root
    service = catalog.topology.service(key)
    if service is None:
        yield "spec.destination", no_such_object(key)
    effective = catalog.policies.breakers.effective(key)
    if effective is not None and effective.key != policy.key:
        yield "spec.destination", f"{effective.key} breaks circuits to {key} already, and is older"
    if spec.errors < 1:
        yield "spec.errors", "is less than 1: it is as if there were no CircuitBreaker"
    elif spec.errors > _MAX_ERRORS:
        yield "spec.errors", f"counts as {_MAX_ERRORS}"
    if spec.timeout_seconds < 1:
        yield "spec.timeoutSeconds", "is less than 1: it is as if there were no CircuitBreaker"
    elif spec.timeout_seconds * 1000 > _MAX_TIMEOUT_MS:
        yield "spec.timeoutSeconds", f"counts as {_MAX_TIMEOUT_MS // 1000}"
    if spec.fallback is None:
        return
    problem = _fallback_problem(catalog, policy, spec.fallback)
    if problem is not None:
        yield problem[0], fallback_unusable(problem[1])
    elif service is not None:
        fallback = catalog.topology.service(fallback_key(spec.fallback))
        protocol = None if fallback is None else fallback.ports[spec.fallback.port].protocol
        for port in service.ports.values():
            if (port.protocol == "tcp") != (protocol == "tcp"):
                yield "spec.fallback.port", f"is {protocol}, port {port.number} of {key} is {port.protocol}"


def _fallback_problem(catalog: Catalog, policy: CircuitBreaker, fallback: Fallback) -> tuple[str, str] | None:
    """(field, reason) why requests cannot go to the fallback; None when they can."""
    key, destination = fallback_key(fallback), breaker_services(policy).root
    service = catalog.topology.service(key)
    if key == destination:
        return "spec.fallback.service", "is the destination itself"
    if key.namespace != destination.namespace:
        return "spec.fallback.service", f"{key} is not in the namespace of {destination}"
    if service is None:
        return "spec.fallback.service", no_such_object(key)
    if fallback.port not in service.ports:
        return "spec.fallback.port", no_such_port(key, fallback.port)
    return None
