"""What a sidecar's application may dial: destinations and the clusters behind them.

These entries depend on the caller only by its effective mTLS mode, so every function here takes that mode as the
`view`, and every sidecar of one mode has the same entries.

| view | endpoints |
|---|---|
| off | all, in plaintext |
| permissive | all; mTLS to those that speak it |
| strict | only those that speak mTLS; a cluster with none is empty, and nothing outside the mesh is reachable |

An endpoint speaks mTLS when its pod is meshed, its own effective mode is not off, and its port passes its sidecar. All
of a remote Service do: they are to prove the SPIFFE ID that it names, as a rule one of another trust domain.

Splits and breakers are the same in every view. They belong to the port of the Service that was dialled.

A pod's address is a destination too, for headless Services and for callers that know the pod. It stands whether or
not the pod is ready: such a caller has chosen the pod itself. So is a remote endpoint's, while it is ready. Who dials a
pod of a headless Service may have meant that Service: its split and breaker apply. Of several, one that is split comes
first, then one with a breaker, then by name.
"""

from __future__ import annotations

from collections.abc import Iterable

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.spiffe import account_id
from nginx_mesh.catalog.addresses import socket_address
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Address, EndpointAddress, ServicePort
from nginx_mesh.catalog.records import Balanced, Workload
from nginx_mesh.compile.keys import breaker_key, cluster_name, destination_key, split_key
from nginx_mesh.protocol.state import Cluster, Destination, Endpoint, LbMethod, MtlsMode, State, cluster_key

from .annotated import lb_method, peer_id, speaks_mtls
from .breakers import breaker
from .splits import split

# A cluster of one endpoint leaves nothing to choose: it takes the cheapest method.
_SINGLE: LbMethod = "round_robin"


def destination(catalog: Catalog, address: Address) -> Destination | None:
    """What dialling an address means, None when the mesh does not know it.

    Where Services disagree, it is the protocol that takes in the others: HTTP is also gRPC, and TCP is anything.
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
        service=_meant(catalog, found[1].headless),
    )


def pod_cluster(catalog: Catalog, settings: MeshSettings, view: MtlsMode, address: Address) -> Cluster | None:
    """The cluster of the one pod at an address, None when nobody has it or a Service's VIP comes first."""
    if catalog.topology.service_at(address) is not None:
        return None
    found = catalog.topology.pod_at(address)
    if found is not None:
        pod, use = found
        peer = _endpoint(settings, view, pod, address.port, None if use.service is None else use.service.name)
    else:
        remote = catalog.topology.remotes.at(address)
        if remote is None:
            return None
        peer = service_endpoint(catalog, settings, view, remote)
    return Cluster(lb_method=_SINGLE, endpoints={} if peer is None else {socket_address(*address): peer})


def service_cluster(catalog: Catalog, settings: MeshSettings, view: MtlsMode, port: ServicePort) -> Cluster | None:
    """The cluster of a Service's port, None when there is no such port, or no VIP and no policy that leads to it."""
    service = catalog.topology.service(port.service)
    if service is None or port.port not in service.ports:
        return None
    policies = catalog.policies
    if not (service.vips or policies.splits.leads_to(service.key) or policies.breakers.leads_to(service.key)):
        return None
    endpoints = {}
    for address in catalog.topology.endpoints_of(service, port.port):
        peer = service_endpoint(catalog, settings, view, address)
        if peer is not None:
            endpoints[socket_address(address.ip, address.target)] = peer
    return Cluster(lb_method=lb_method(settings, service), endpoints=endpoints)


def service_endpoint(
    catalog: Catalog, settings: MeshSettings, view: MtlsMode, address: EndpointAddress
) -> Endpoint | None:
    """One endpoint of a Service's port, None when there is none or this view may not reach it."""
    service = catalog.topology.service(address.service)
    if service is not None and service.remote:
        return _remote_endpoint(service, view) if address in catalog.topology.remotes else None
    pod = catalog.topology.pod_of(address)
    return None if pod is None else _endpoint(settings, view, pod, address.target, address.service.name)


def outbound(catalog: Catalog, settings: MeshSettings, view: MtlsMode) -> State:
    """Every entry of a view."""
    topology = catalog.topology
    ports = [ServicePort(service.key, port) for service in topology.services() for port in service.ports]
    addresses = {
        Address(vip, port) for service in topology.services() for vip in service.vips for port in service.ports
    }
    for pod in topology.pods():
        addresses.update(Address(ip, port) for ip in pod.addresses for port in topology.ports_of(pod))
    addresses.update(topology.remotes.addresses())
    state: State = {}
    for address in addresses:
        meaning = destination(catalog, address)
        if meaning is not None:
            state[destination_key(address)] = meaning
        alone = pod_cluster(catalog, settings, view, address)
        if alone is not None:
            state[cluster_key(socket_address(*address))] = alone
    for port in ports:
        behind = service_cluster(catalog, settings, view, port)
        if behind is not None:
            state[cluster_key(cluster_name(port))] = behind
        divided, circuit = split(catalog, port), breaker(catalog, port)
        if divided is not None:
            state[split_key(port)] = divided
        if circuit is not None:
            state[breaker_key(port)] = circuit
    return state


def _meant(catalog: Catalog, ports: Iterable[ServicePort]) -> str:
    """The one of these Service ports whose split and breaker apply to calls of a pod behind all of them."""
    policies = catalog.policies
    for diversions in (policies.splits, policies.breakers):
        for port in ports:
            if diversions.rivals(port.service):
                return cluster_name(port)
    return ""


def _remote_destination(catalog: Catalog, address: Address) -> Destination | None:
    remote = catalog.topology.remotes.at(address)
    service = None if remote is None else catalog.topology.service(remote.service)
    if remote is None or service is None:
        return None
    return Destination(
        protocol=service.ports[remote.port].protocol,
        cluster=socket_address(*address),
        service=_meant(catalog, (remote.service_port,)) if service.headless else "",
    )


def _remote_endpoint(service: Balanced, view: MtlsMode) -> Endpoint | None:
    identity = peer_id(service)
    if identity is None:
        return None
    tls = view != "off"
    labels = {"dst_service": service.key.name, "dst_namespace": service.key.namespace}
    return Endpoint(tls=tls, spiffe_id=identity if tls else "", labels=labels)


def _endpoint(settings: MeshSettings, view: MtlsMode, pod: Workload, port: int, service: str | None) -> Endpoint | None:
    identity = account_id(settings.trust_domain, pod.key.namespace, pod.account)
    tls = view != "off" and identity is not None and speaks_mtls(settings, pod, port)
    if view == "strict" and not tls:
        return None
    labels = {"dst_pod": pod.key.name, "dst_namespace": pod.key.namespace}
    if service is not None:
        labels["dst_service"] = service
    if pod.owner is not None:
        kind, name = pod.owner
        labels[f"dst_{kind}"] = name
    return Endpoint(tls=tls, spiffe_id=(identity or "") if tls else "", labels=labels)
