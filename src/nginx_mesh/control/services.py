"""The Services of the mesh and their endpoints, for `nginx-meshctl services`. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nginx_mesh.api.spiffe import account_id
from nginx_mesh.catalog.addresses import family
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.records import PodRecord, ServiceRecord
from nginx_mesh.compile.effective import peer_id

Facts = dict[str, Any]


def services(
    catalog: Catalog, trust_domain: str, injects: Callable[[str], bool], namespace: str | None = None
) -> list[Facts]:
    """Every Service of the mesh in one namespace or in all, sorted by name.

    A Service is part of the mesh when a pod behind it has a sidecar, or when its endpoints prove an identity. While it
    has no endpoints it is part of the mesh when `injects` says that pods of its namespace get sidecars.
    """
    found = []
    for service in sorted(catalog.topology.services(), key=lambda service: service.key):
        if namespace not in (None, service.key.namespace):
            continue
        upstreams = _remote(catalog, service) if service.remote else _pods(catalog, service, trust_domain)
        meshed = any(upstream["meshed"] for upstream in upstreams)
        if meshed or service.remote or (not upstreams and injects(service.key.namespace)):
            found.append(_about(service, upstreams))
    return found


def _about(service: ServiceRecord, upstreams: list[Facts]) -> Facts:
    return {
        "namespace": service.key.namespace,
        "name": service.key.name,
        "addresses": list(service.vips),
        "ports": [
            {"port": port.number, "name": port.name, "protocol": port.protocol, "target": port.target}
            for port in service.ports.values()
        ],
        "upstreams": upstreams,
    }


def _pods(catalog: Catalog, service: ServiceRecord, trust_domain: str) -> list[Facts]:
    topology = catalog.topology
    pods = (topology.pod(key) for key in sorted(topology.pods_behind(service.key)))
    return [_pod(service, pod, trust_domain) for pod in pods if pod is not None and service.address_of(pod)]


def _pod(service: ServiceRecord, pod: PodRecord, trust_domain: str) -> Facts:
    return {
        "address": service.address_of(pod),
        "pod": pod.key.name,
        "ready": pod.ready,
        "meshed": pod.meshed,
        "spiffe_id": account_id(trust_domain, pod.key.namespace, pod.account) if pod.meshed else None,
    }


def _remote(catalog: Catalog, service: ServiceRecord) -> list[Facts]:
    """The endpoints that EndpointSlices list as ready."""
    addresses = {endpoint.ip for endpoint in catalog.topology.remote_endpoints.of_service(service)}
    return [
        {"address": address, "pod": None, "ready": True, "meshed": True, "spiffe_id": peer_id(service)}
        for address in sorted(addresses, key=lambda address: (family(address), address))
    ]
