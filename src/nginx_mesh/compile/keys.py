"""The keys of entries in the state of sidecars (see protocol/state.py)."""

from __future__ import annotations

from nginx_mesh.catalog.addresses import socket_address
from nginx_mesh.catalog.changes import Address, ServicePort


def cluster_name(port: ServicePort) -> str:
    """The name of a Service port's cluster, split and breaker: `<namespace>/<service>:<port>`."""
    return f"{port.service.namespaced_name}:{port.port}"


def destination_key(address: Address) -> str:
    """The state key of a destination."""
    return f"destination/{socket_address(*address)}"


def split_key(port: ServicePort) -> str:
    """The state key of a Service port's split."""
    return f"split/{cluster_name(port)}"


def breaker_key(port: ServicePort) -> str:
    """The state key of a Service port's circuit breaker."""
    return f"breaker/{cluster_name(port)}"
