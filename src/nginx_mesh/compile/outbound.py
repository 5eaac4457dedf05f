"""What a pod may dial: destinations, the clusters behind them, splits and circuit breakers.

These entries depend on the caller only by its effective mTLS mode. So the functions here take the caller's `mode`, and
all sidecars of one mode share the same entries.

| mode | endpoints |
|---|---|
| off | all, in plaintext |
| permissive | all, by mTLS those that support it |
| strict | only those that support mTLS: a cluster without any is empty, and nothing outside of the mesh is reachable |

An endpoint supports mTLS when its pod is meshed, the pod's effective mode is not off, and its port is not one that
bypasses the sidecar. All endpoints of a remote Service support it: they have to prove the SPIFFE ID that the Service
names, as a rule one of another trust domain.

Splits and breakers are the same in every mode. They apply to the port of the Service that was dialled.

A pod's own address is a destination too, for callers of headless Services and for callers that know the pod. It exists
whether or not the pod is ready, because such a caller has chosen the pod itself. The address of a remote endpoint is a
destination while the endpoint is ready.

A caller that dials a pod of a headless Service may have resolved the Service's name, so the Service's split and breaker
apply. When several headless Services select the pod, those of the first one with a split apply, else those of the first
one with a breaker, in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.spiffe import account_id
from nginx_mesh.catalog.addresses import socket_address
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Address, EndpointAddress, ServicePort
from nginx_mesh.catalog.records import PodRecord, ServiceRecord
from nginx_mesh.compile.keys import breaker_key, cluster_name, destination_key, split_key
from nginx_mesh.protocol.state import Cluster, Destination, Endpoint, LbMethod, MtlsMode, State, StateEntry, cluster_key

from .breakers import breaker
from .effective import lb_method, peer_id, speaks_mtls
from .splits import split

# With one endpoint there is nothing to choose, so the cheapest method will do.
_SINGLE: LbMethod = "round_robin"


def destination(catalog: Catalog, address: Address) -> Destination | None:
    """The destination of an address, None when the mesh does not know the address.

    Where Services disagree about a port's protocol, the most general one applies: HTTP includes gRPC, TCP everything.
    """
    service = catalog.topology.service_at(address)
    if service is not None:
        port = service.ports[address.port]
        return Destination(protocol=port.protocol, cluster=cluster_name(ServicePort(service.key, port.number)))
    found = catalog.topology.pod_at(address)
    if found is None:
        return _remote_destination(catalog, address)
    return Destination(
        protocol=max(found[1].protocols, key=("grpc", "http", "tcp").index),
        cluster=socket_address(*address),
        service=_routed_service(catalog, found[1].headless),
    )


def pod_cluster(catalog: Catalog, settings: MeshSettings, mode: MtlsMode, address: Address) -> Cluster | None:
    """The cluster whose only endpoint is at an address; None when nothing is there or when it is a Service's VIP."""
    if catalog.topology.service_at(address) is not None:
        return None
    found = catalog.topology.pod_at(address)
    if found is not None:
        pod, use = found
        endpoint = _endpoint(settings, mode, pod, address.port, None if use.service is None else use.service.name)
    else:
        remote = catalog.topology.remote_endpoints.at(address)
        if remote is None:
            return None
        endpoint = service_endpoint(catalog, settings, mode, remote)
    return Cluster(lb_method=_SINGLE, endpoints={} if endpoint is None else {socket_address(*address): endpoint})


def service_cluster(catalog: Catalog, settings: MeshSettings, mode: MtlsMode, port: ServicePort) -> Cluster | None:
    """The cluster of a Service's port.

    None when there is no such port. None also for a Service without VIPs, unless it is a policy's backend or fallback.
    """
    service = catalog.topology.service(port.service)
    if service is None or port.port not in service.ports:
        return None
    policies = catalog.policies
    if not (service.vips or policies.splits.is_backend(service.key) or policies.breakers.is_backend(service.key)):
        return None
    endpoints = {}
    for address in catalog.topology.endpoints_of(service, port.port):
        endpoint = service_endpoint(catalog, settings, mode, address)
        if endpoint is not None:
            endpoints[socket_address(*address.address)] = endpoint
    return Cluster(lb_method=lb_method(settings, service), endpoints=endpoints)


def service_endpoint(
    catalog: Catalog, settings: MeshSettings, mode: MtlsMode, address: EndpointAddress
) -> Endpoint | None:
    """One endpoint of a Service's port, None when there is none or callers of this mode may not reach it."""
    service = catalog.topology.service(address.service)
    if service is not None and service.remote:
        return _remote_endpoint(service, mode) if address in catalog.topology.remote_endpoints else None
    pod = catalog.topology.pod_of(address)
    return None if pod is None else _endpoint(settings, mode, pod, address.target, address.service.name)


def outbound(catalog: Catalog, settings: MeshSettings, mode: MtlsMode) -> State:
    """All entries that sidecars of one mode share."""
    entries: dict[str, StateEntry | None] = {}
    for address in catalog.topology.addresses():
        entries.update(address_entries(catalog, settings, mode, address))
    for port in catalog.topology.service_ports():
        entries[cluster_key(cluster_name(port))] = service_cluster(catalog, settings, mode, port)
        entries[split_key(port)] = split(catalog, port)
        entries[breaker_key(port)] = breaker(catalog, port)
    return {key: entry for key, entry in entries.items() if entry is not None}


def address_entries(
    catalog: Catalog, settings: MeshSettings, mode: MtlsMode, address: Address
) -> Iterator[tuple[str, StateEntry | None]]:
    """The keys of the two entries about an address, each with its entry or None."""
    yield destination_key(address), destination(catalog, address)
    yield cluster_key(socket_address(*address)), pod_cluster(catalog, settings, mode, address)


def _routed_service(catalog: Catalog, ports: Iterable[ServicePort]) -> str:
    """The name of the first of these ports whose Service has a split, else a breaker; "" when none has either."""
    policies = catalog.policies
    for routing in (policies.splits, policies.breakers):
        for port in ports:
            if routing.with_root(port.service):
                return cluster_name(port)
    return ""


def _remote_destination(catalog: Catalog, address: Address) -> Destination | None:
    remote = catalog.topology.remote_endpoints.at(address)
    service = None if remote is None else catalog.topology.service(remote.service)
    if remote is None or service is None:
        return None
    return Destination(
        protocol=service.ports[remote.port].protocol,
        cluster=socket_address(*address),
        service=_routed_service(catalog, (remote.service_port,)) if service.headless else "",
    )


def _remote_endpoint(service: ServiceRecord, mode: MtlsMode) -> Endpoint | None:
    identity = peer_id(service)
    if identity is None:
        return None
    tls = mode != "off"
    labels = {"dst_service": service.key.name, "dst_namespace": service.key.namespace}
    return Endpoint(tls=tls, spiffe_id=identity if tls else "", labels=labels)


def _endpoint(
    settings: MeshSettings, mode: MtlsMode, pod: PodRecord, port: int, service: str | None
) -> Endpoint | None:
    identity = account_id(settings.trust_domain, pod.key.namespace, pod.account)
    tls = mode != "off" and identity is not None and speaks_mtls(settings, pod, port)
    if mode == "strict" and not tls:
        return None
    labels = {"dst_pod": pod.key.name, "dst_namespace": pod.key.namespace}
    if service is not None:
        labels["dst_service"] = service
    if pod.owner is not None:
        kind, name = pod.owner
        labels[f"dst_{kind}"] = name
    return Endpoint(tls=tls, spiffe_id=(identity or "") if tls else "", labels=labels)
