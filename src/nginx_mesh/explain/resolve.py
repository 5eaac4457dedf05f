"""Resolves the names of a caller and of a Service, as users give them, by the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.portprotocol import protocol_of
from nginx_mesh.api.services import Service, ServicePort
from nginx_mesh.api.workloadkinds import WORKLOADS
from nginx_mesh.catalog.addresses import canonical, socket_address
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Address
from nginx_mesh.catalog.records import PodRecord

Lookup = Callable[[ObjectKey], Object | None]
KindOf = Callable[[str], str | None]


class ResolveError(Exception):
    """A name means nothing, or several things. The message says how to name what is meant."""


@dataclass(frozen=True, slots=True)
class ResolvedCaller:
    """The calling pod, which is one of `pods` pods of the workload that was named."""

    pod: PodRecord
    workload: str
    pods: int


@dataclass(frozen=True, slots=True)
class ResolvedService:
    """A port of a Service, and the address that a caller dials for it.

    There is no address when the Service is headless and has no pod that is ready.
    """

    key: ObjectKey
    port: int
    protocol: str
    address: Address | None

    @property
    def host(self) -> str:
        """The Host header that an application sends to it."""
        suffix = "" if self.port == 80 else f":{self.port}"
        return f"{self.key.name}.{self.key.namespace}{suffix}"


def resolve_caller(catalog: Catalog, name: str, namespace: str, kind_of: KindOf) -> ResolvedCaller:
    """The caller with a name: NAME, NAMESPACE/NAME or NAMESPACE/KIND/NAME. Raises ResolveError."""
    title, key = _split(name, namespace)
    kinds: tuple[str, ...] = WORKLOADS
    if title:
        kind = kind_of(title)
        if kind not in WORKLOADS:
            raise ResolveError(f'from: there is no workload of kind "{title}"')
        kinds = (kind,)
    found = {kind: pods for kind in kinds if (pods := _running(catalog, ObjectKey(kind, key.namespace, key.name)))}
    if len(found) > 1:
        choices = " or ".join(f"{key.namespace}/{kind.lower()}/{key.name}" for kind in found)
        raise ResolveError(f"from: {key.namespace}/{key.name} is several workloads: say {choices}")
    for kind, pods in found.items():
        pod = min(pods, key=lambda pod: (not pod.ready, pod.key))
        return ResolvedCaller(pod, f"{kind} {key.namespace}/{key.name}", len(pods))
    what = kinds[0] if title else "workload"
    raise ResolveError(f"from: no pod of {what} {key.namespace}/{key.name} is running")


def resolve_service(catalog: Catalog, lookup: Lookup, name: str, namespace: str, kind_of: KindOf) -> ResolvedService:
    """The Service with a name like that of a caller, and an optional :PORT (number or name). Raises ResolveError."""
    service_name, _, wanted = name.partition(":")
    title, key = _split(service_name, namespace)
    if title and kind_of(title) != Service.KIND:
        raise ResolveError(f'to: "{title}" is not a Service')
    service = lookup(ObjectKey(Service.KIND, key.namespace, key.name))
    if not isinstance(service, Service):
        raise ResolveError(f"to: there is no Service {key.namespace}/{key.name}")
    if service.spec.type == "ExternalName":
        raise ResolveError(
            f"to: {service.key} is a name of something outside of the cluster, which has no address here"
        )
    port = _port(service, wanted)
    known = catalog.topology.service(service.key)
    protocol = protocol_of(port=port.port, name=port.name, app_protocol=port.app_protocol)
    vips = [ip for text in service.spec.cluster_ips or [service.spec.cluster_ip] if (ip := canonical(text))]
    if vips:
        return ResolvedService(service.key, port.port, protocol, Address(vips[0], port.port))
    endpoints = sorted(catalog.topology.endpoints_of(known, port.port)) if known is not None else []
    if not endpoints:
        return ResolvedService(service.key, port.port, protocol, None)
    return ResolvedService(service.key, port.port, protocol, Address(endpoints[0].ip, endpoints[0].target))


def name_of(pod: PodRecord) -> str:
    """`namespace/name`."""
    return f"{pod.key.namespace}/{pod.key.name}"


def address_of(text: str) -> Address:
    """The inverse of `socket_address`."""
    ip, _, port = text.rpartition(":")
    return Address(ip.strip("[]"), int(port))


def pod_behind(catalog: Catalog, endpoint: str) -> PodRecord | None:
    """The pod of this mesh that is at "ip:port"."""
    found = catalog.topology.pod_at(address_of(endpoint))
    return None if found is None else found[0]


def source_of(pod: PodRecord, address: Address) -> str:
    """The address from which a pod calls another address: the first one of the same family."""
    same = [ip for ip in pod.addresses if (":" in ip) == (":" in address.ip)]
    return (same or list(pod.addresses))[0]


def endpoints_behind(catalog: Catalog, target: ResolvedService) -> list[str]:
    """The endpoints that the kernel chooses from when a caller without a sidecar dials a Service."""
    service = catalog.topology.service(target.key)
    if service is None or target.address is None:
        return []
    if not service.vips:
        return [socket_address(*target.address)]
    found = catalog.topology.endpoints_of(service, target.port)
    return [socket_address(endpoint.ip, endpoint.target) for endpoint in sorted(found)]


def _split(name: str, namespace: str) -> tuple[str, ObjectKey]:
    """The kind in a name, "" when it has none, and namespace and name as a key without a kind."""
    parts = name.split("/")
    if not all(parts) or len(parts) > 3:
        raise ResolveError(f'"{name}" is not NAMESPACE/NAME or NAMESPACE/KIND/NAME')
    where = parts[0] if len(parts) > 1 else namespace
    return parts[1] if len(parts) == 3 else "", ObjectKey("", where, parts[-1])


def _running(catalog: Catalog, key: ObjectKey) -> list[PodRecord]:
    pods = (catalog.topology.pod(each) for each in catalog.topology.pods_behind(key))
    return [pod for pod in pods if pod is not None and pod.addresses]


def _port(service: Service, wanted: str) -> ServicePort:
    ports = [port for port in service.spec.ports if port.protocol == "TCP"]
    named = ", ".join(f"{port.port} ({port.name})" if port.name else str(port.port) for port in ports)
    if wanted:
        found = next((port for port in ports if wanted in (port.name, str(port.port))), None)
        if found is None:
            raise ResolveError(f"to: {service.key} has no TCP port {wanted}: it has {named or 'none'}")
        return found
    if not ports:
        raise ResolveError(f"to: {service.key} has no TCP port")
    if len(ports) > 1:
        raise ResolveError(
            f"to: {service.key} has several ports, {named}: add one, as in {service.key.name}:{ports[0].port}"
        )
    return ports[0]
