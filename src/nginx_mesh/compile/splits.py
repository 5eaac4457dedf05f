"""Compiles TrafficSplits. When several have the same root Service, the oldest one applies.

Requests for a port of the root go to one port of each backend: that with the same number, else that with the same name,
else its only port. A backend without such a port is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import RouteRule, TrafficSplit
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import ServicePort
from nginx_mesh.catalog.messages import no_such_object
from nginx_mesh.catalog.records import Port, ServiceRecord
from nginx_mesh.compile.keys import cluster_name
from nginx_mesh.protocol.state import Split, SplitBackend

from .routes import Routes, resolve

# Sidecars cannot count higher.
_MAX_WEIGHT = (1 << 31) - 1


def split(catalog: Catalog, port: ServicePort) -> Split | None:
    """The split of requests for a Service's port; None when all requests go to the Service itself."""
    policy, root = catalog.policies.splits.effective(port.service), catalog.topology.service(port.service)
    if policy is None or root is None or port.port not in root.ports:
        return None
    matches = _routes(catalog, policy).http
    if policy.spec.matches and not matches:
        return None
    backends = []
    for backend in policy.spec.backends:
        service = catalog.topology.service(_service(policy, backend.service))
        backend_port = None if service is None else _backend_port(root.ports[port.port], service)
        if service is not None and backend_port is not None:
            cluster = cluster_name(ServicePort(service.key, backend_port.number))
            backends.append(SplitBackend(cluster=cluster, weight=min(max(backend.weight, 0), _MAX_WEIGHT)))
    if not backends:
        return None
    return Split(split=policy.key.namespaced_name, backends=backends, matches=matches)


def split_problems(catalog: Catalog, policy: TrafficSplit) -> Iterator[tuple[str, str]]:
    """(field, reason) of everything in a TrafficSplit that has no effect or another one than written."""
    spec, key = policy.spec, _service(policy, policy.spec.service)
    root = catalog.topology.service(key)
    if root is None:
        yield "spec.service", no_such_object(key)
    effective = catalog.policies.splits.effective(key)
    if effective is not None and effective.key != policy.key:
        yield "spec.service", f"{effective.key} splits {key} already, and is older"
    if not any(backend.weight > 0 for backend in spec.backends):
        yield "spec.backends", f"no weight is above 0: all requests go to {key} itself"
    for index, backend in enumerate(spec.backends):
        where = f"spec.backends[{index}]"
        if backend.weight < 0:
            yield f"{where}.weight", "is negative, and counts as 0"
        service = catalog.topology.service(_service(policy, backend.service))
        if service is None:
            yield f"{where}.service", no_such_object(_service(policy, backend.service))
        elif root is not None:
            for reason in _port_problems(root, service):
                yield f"{where}.service", reason
    routes = _routes(catalog, policy)
    yield from routes.problems
    if spec.matches and not routes.http:
        yield "spec.matches", f"match nothing: all requests go to {key} itself"
    elif spec.matches and root is not None:
        for port in root.ports.values():
            if port.protocol == "tcp":
                yield "spec.matches", f"port {port.number} of {key} is TCP, where nothing matches"


def _port_problems(root: ServiceRecord, backend: ServiceRecord) -> Iterator[str]:
    for port in root.ports.values():
        backend_port = _backend_port(port, backend)
        if backend_port is None:
            yield f"{backend.key} has no port for {port.number} of {root.key}: there it is left out"
        elif (backend_port.protocol == "tcp") != (port.protocol == "tcp"):
            yield (
                f"port {backend_port.number} of {backend.key} is {backend_port.protocol},"
                f" port {port.number} of {root.key} is {port.protocol}: name them alike"
            )


def _backend_port(port: Port, backend: ServiceRecord) -> Port | None:
    found = backend.ports.get(port.number)
    if found is None and port.name:
        found = next((other for other in backend.ports.values() if other.name == port.name), None)
    if found is None and len(backend.ports) == 1:
        (found,) = backend.ports.values()
    return found


def _service(policy: TrafficSplit, name: str) -> ObjectKey:
    return ObjectKey(Service.KIND, policy.metadata.namespace, name)


def _routes(catalog: Catalog, policy: TrafficSplit) -> Routes:
    rules = [RouteRule(kind=match.kind, name=match.name) for match in policy.spec.matches]
    return resolve(catalog.policies, policy.metadata.namespace, rules, "spec.matches")
