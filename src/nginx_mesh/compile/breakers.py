"""CircuitBreakers: when nothing is sent to a Service. Of several for one Service, the oldest counts.

Each port of the Service has a circuit of its own. A fallback that cannot be used counts as none: callers are refused
while the circuit is open.
"""

from __future__ import annotations

from collections.abc import Iterator

from nginx_mesh.api.core import Service
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, Fallback
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import ServicePort
from nginx_mesh.catalog.messages import absent, no_fallback, without_port
from nginx_mesh.catalog.routing import breaker_ends
from nginx_mesh.compile.keys import cluster_name
from nginx_mesh.protocol.state import Breaker

_MOST_ERRORS = 10_000
_LONGEST_MS = (1 << 31) - 1


def breaker(catalog: Catalog, port: ServicePort) -> Breaker | None:
    """The circuit of a Service's port, None when it has none or its numbers mean nothing."""
    policy, service = catalog.policies.breakers.at(port.service), catalog.topology.service(port.service)
    if policy is None or service is None or port.port not in service.ports:
        return None
    spec = policy.spec
    if spec.errors < 1 or spec.timeout_seconds < 1:
        return None
    return Breaker(
        breaker=f"{policy.metadata.namespace}/{policy.metadata.name}",
        errors=min(spec.errors, _MOST_ERRORS),
        timeout_ms=min(spec.timeout_seconds * 1000, _LONGEST_MS),
        fallback=""
        if spec.fallback is None or _unusable(catalog, policy, spec.fallback) is not None
        else cluster_name(ServicePort(_key(spec.fallback), spec.fallback.port)),
    )


def breaker_problems(catalog: Catalog, policy: CircuitBreaker) -> Iterator[tuple[str, str]]:
    """What is wrong with a CircuitBreaker, by field."""
    spec, key = policy.spec, breaker_ends(policy).start
    service = catalog.topology.service(key)
    if service is None:
        yield "spec.destination", absent(key)
    counts = catalog.policies.breakers.at(key)
    if counts is not None and counts.key != policy.key:
        yield "spec.destination", f"{counts.key} breaks circuits to {key} already, and is older"
    if spec.errors < 1:
        yield "spec.errors", "is less than 1: it is as if there were no CircuitBreaker"
    elif spec.errors > _MOST_ERRORS:
        yield "spec.errors", f"counts as {_MOST_ERRORS}"
    if spec.timeout_seconds < 1:
        yield "spec.timeoutSeconds", "is less than 1: it is as if there were no CircuitBreaker"
    elif spec.timeout_seconds * 1000 > _LONGEST_MS:
        yield "spec.timeoutSeconds", f"counts as {_LONGEST_MS // 1000}"
    if spec.fallback is None:
        return
    problem = _unusable(catalog, policy, spec.fallback)
    if problem is not None:
        yield problem[0], no_fallback(problem[1])
    elif service is not None:
        fallback = catalog.topology.service(_key(spec.fallback))
        answers = None if fallback is None else fallback.ports[spec.fallback.port].protocol
        for port in service.ports.values():
            if (port.protocol == "tcp") != (answers == "tcp"):
                yield "spec.fallback.port", f"is {answers}, port {port.number} of {key} is {port.protocol}"


def _unusable(catalog: Catalog, policy: CircuitBreaker, fallback: Fallback) -> tuple[str, str] | None:
    """Why nobody can be sent to the fallback, by field."""
    key, destination = _key(fallback), breaker_ends(policy).start
    service = catalog.topology.service(key)
    if key == destination:
        return "spec.fallback.service", "is the destination itself"
    if key.namespace != destination.namespace:
        return "spec.fallback.service", f"{key} is not in the namespace of {destination}"
    if service is None:
        return "spec.fallback.service", absent(key)
    if fallback.port not in service.ports:
        return "spec.fallback.port", without_port(key, fallback.port)
    return None


def _key(fallback: Fallback) -> ObjectKey:
    return ObjectKey(Service.KIND, fallback.namespace, fallback.name)
