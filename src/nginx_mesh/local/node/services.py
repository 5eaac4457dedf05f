"""Services as the node sees them: addresses, ports and backends. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import EndpointSlice, Service, ServicePort


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a service. `protocol` is TCP, UDP or SCTP."""

    name: str
    protocol: str
    number: int


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """A backend of a service: a pod, or an endpoint of a slice.

    `ports` are its port numbers for the service's ports, in the same order; 0 where it has none. `hostname` is empty
    unless the backend has a DNS name below that of the service.
    """

    addresses: tuple[str, ...]
    ports: tuple[int, ...]
    ready: bool
    hostname: str = ""


class ServiceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A service. `cluster_ips` is empty for a headless one.

    `backends` includes those that are not ready. They get no connections unless `publish_not_ready`.
    """

    namespace: str
    name: str
    cluster_ips: tuple[str, ...]
    ports: tuple[Port, ...]
    backends: tuple[Backend, ...]
    publish_not_ready: bool = False

    @property
    def active(self) -> tuple[Backend, ...]:
        """The backends that take connections."""
        return tuple(backend for backend in self.backends if backend.ready or self.publish_not_ready)


def resolve_services(
    services: Iterable[Service], pods: Iterable[Pod], slices: Iterable[EndpointSlice] = ()
) -> list[ServiceEntry]:
    """The entries of services, sorted by namespace and name.

    The backends of a service are the pods that match its selector, have an address, have not ended and are not being
    deleted. The backends of a service without a selector are the endpoints of its EndpointSlices.
    """
    by_namespace: defaultdict[str, list[Pod]] = defaultdict(list)
    for pod in pods:
        if pod.status.ips and pod.status.phase not in ("Succeeded", "Failed") and not pod.metadata.deletion_timestamp:
            by_namespace[pod.metadata.namespace].append(pod)
    by_service: defaultdict[tuple[str, str], list[EndpointSlice]] = defaultdict(list)
    for slice_ in slices:
        name = slice_.metadata.labels.get(EndpointSlice.SERVICE_NAME, "")
        by_service[slice_.metadata.namespace, name].append(slice_)
    entries = [
        _entry(
            service,
            by_namespace[service.metadata.namespace],
            by_service[service.metadata.namespace, service.metadata.name],
        )
        for service in services
    ]
    return sorted(entries, key=lambda entry: (entry.namespace, entry.name))


def _entry(service: Service, pods: list[Pod], slices: list[EndpointSlice]) -> ServiceEntry:
    spec = service.spec
    addresses = () if spec.headless else tuple(spec.cluster_ips) or tuple(filter(None, [spec.cluster_ip]))
    if spec.selector:
        chosen = [pod for pod in pods if spec.selector.items() <= pod.metadata.labels.items()]
        backends = tuple(_backend(service, pod) for pod in sorted(chosen, key=lambda pod: pod.metadata.name))
    else:
        ordered = sorted(slices, key=lambda slice_: slice_.metadata.name)
        backends = tuple(backend for slice_ in ordered for backend in _slice_backends(service, slice_))
    return ServiceEntry(
        namespace=service.metadata.namespace,
        name=service.metadata.name,
        cluster_ips=addresses,
        ports=tuple(Port(name=port.name, protocol=port.protocol, number=port.port) for port in spec.ports),
        backends=backends,
        publish_not_ready=spec.publish_not_ready_addresses,
    )


def _backend(service: Service, pod: Pod) -> Backend:
    named = pod.spec.hostname and pod.spec.subdomain == service.metadata.name
    families = service.spec.ip_families or ("IPv4", "IPv6")
    return Backend(
        addresses=tuple(ip for ip in pod.status.ips if ("IPv6" if ":" in ip else "IPv4") in families),
        ports=tuple(_target(port, pod) for port in service.spec.ports),
        ready=pod.status.ready,
        hostname=pod.spec.hostname if named else "",
    )


def _slice_backends(service: Service, slice_: EndpointSlice) -> list[Backend]:
    families = service.spec.ip_families or ("IPv4", "IPv6")
    numbers = {(port.name, port.protocol): port.port or 0 for port in slice_.ports}
    return [
        Backend(
            addresses=tuple(endpoint.addresses),
            ports=tuple(numbers.get((port.name, port.protocol), 0) for port in service.spec.ports),
            ready=endpoint.conditions.ready is not False,
            hostname=endpoint.hostname,
        )
        for endpoint in slice_.endpoints
        if slice_.address_type in families
    ]


def _target(port: ServicePort, pod: Pod) -> int:
    target = port.target_port
    if isinstance(target, int) or target is None:
        return target or port.port
    for container in pod.spec.containers:
        for declared in container.ports:
            if declared.name == target and declared.protocol == port.protocol:
                return declared.container_port
    return int(target) if target.isdecimal() and 0 < int(target) < 65536 else 0
