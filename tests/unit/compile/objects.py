"""Short constructors of Kubernetes objects for tests, and a sidecar's side of the state protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import EndpointSlice, Service
from nginx_mesh.api.smi import HTTPRouteGroup, TCPRoute, TrafficSplit, TrafficTarget
from nginx_mesh.protocol.state import Update


def pod(
    name: str,
    *,
    namespace: str = "default",
    ips: Sequence[str] = ("10.0.0.1",),
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    account: str = "",
    ports: Sequence[tuple[int, str]] = ((8080, ""),),
    meshed: bool = True,
    ready: bool = True,
    phase: str = "Running",
    created: str = "2024-01-01T00:00:00Z",
    deleting: bool = False,
) -> Pod:
    injected = {"injector.nsm.nginx.com/status": "injected"} if meshed else {}
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": dict(labels or {}),
                "annotations": {**injected, **(annotations or {})},
                "creationTimestamp": created,
                "deletionTimestamp": "2024-01-02T00:00:00Z" if deleting else None,
            },
            "spec": {
                "serviceAccountName": account,
                "containers": [
                    {"name": "app", "ports": [{"containerPort": number, "name": name} for number, name in ports]},
                    *([{"name": "nginx-mesh-sidecar", "ports": [{"containerPort": 8887}]}] if meshed else []),
                ],
            },
            "status": {
                "phase": phase,
                "podIPs": [{"ip": ip} for ip in ips],
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        },
        Pod,
    )


def port(
    number: int,
    name: str = "",
    *,
    target: int | str | None = None,
    app_protocol: str | None = None,
    protocol: str = "TCP",
) -> dict[str, Any]:
    return {
        "port": number,
        "name": name,
        "targetPort": target,
        "appProtocol": app_protocol,
        "protocol": protocol,
    }


def service(
    name: str,
    *ports: dict[str, Any],
    namespace: str = "default",
    vips: Sequence[str] = ("10.96.0.1",),
    selector: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    publish_not_ready: bool = False,
) -> Service:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations or {})},
            "spec": {
                "selector": {"app": name} if selector is None else dict(selector),
                "ports": list(ports),
                "clusterIP": vips[0] if vips else "None",
                "clusterIPs": list(vips) or ["None"],
                "publishNotReadyAddresses": publish_not_ready,
            },
        },
        Service,
    )


def slice_(
    name: str,
    service: str,
    addresses: Mapping[str, bool | None],
    ports: Mapping[str, int | None],
    *,
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    protocol: str = "TCP",
) -> EndpointSlice:
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"kubernetes.io/service-name": service, **(labels or {})},
            },
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": [address], "conditions": {"ready": ready}} for address, ready in addresses.items()
            ],
            "ports": [{"name": name, "port": number, "protocol": protocol} for name, number in ports.items()],
        },
        EndpointSlice,
    )


def target(
    name: str,
    account: str,
    sources: Sequence[str],
    *rules: dict[str, Any],
    namespace: str = "default",
    port: int | None = None,
    created: str = "",
) -> TrafficTarget:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
            "spec": {
                "destination": {"kind": "ServiceAccount", "name": account, "port": port},
                "sources": [{"kind": "ServiceAccount", "name": source} for source in sources],
                "rules": list(rules),
            },
        },
        TrafficTarget,
    )


def http(name: str, *matches: str) -> dict[str, Any]:
    return {"kind": "HTTPRouteGroup", "name": name, "matches": list(matches)}


def tcp(name: str) -> dict[str, Any]:
    return {"kind": "TCPRoute", "name": name}


def group(name: str, *matches: dict[str, Any], namespace: str = "default") -> HTTPRouteGroup:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": namespace}, "spec": {"matches": list(matches)}}, HTTPRouteGroup
    )


def tcp_route(name: str, namespace: str = "default") -> TCPRoute:
    return msgspec.convert({"metadata": {"name": name, "namespace": namespace}}, TCPRoute)


def limit(
    name: str,
    destination: tuple[str, str],
    rate: str,
    *rules: dict[str, Any],
    sources: Sequence[tuple[str, str]] = (),
    namespace: str = "default",
    created: str = "",
    burst: int = 0,
    delay: int | str = 0,
) -> RateLimit:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
            "spec": {
                "destination": {"kind": destination[0], "name": destination[1]},
                "sources": [{"kind": kind, "name": source} for kind, source in sources],
                "name": name,
                "rate": rate,
                "burst": burst,
                "delay": delay,
                "rules": list(rules),
            },
        },
        RateLimit,
    )


def split(
    name: str,
    root: str,
    backends: Mapping[str, int],
    *groups: str,
    namespace: str = "default",
    created: str = "",
) -> TrafficSplit:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
            "spec": {
                "service": root,
                "backends": [{"service": service, "weight": weight} for service, weight in backends.items()],
                "matches": [{"kind": "HTTPRouteGroup", "name": group} for group in groups],
            },
        },
        TrafficSplit,
    )


def breaker(
    name: str,
    destination: str,
    *,
    errors: int = 3,
    seconds: int = 30,
    fallback: str | None = None,
    fallback_port: int = 80,
    namespace: str = "default",
    destination_namespace: str = "",
    created: str = "",
) -> CircuitBreaker:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
            "spec": {
                "destination": {"kind": "Service", "name": destination, "namespace": destination_namespace},
                "errors": errors,
                "timeoutSeconds": seconds,
                "fallback": None if fallback is None else {"service": fallback, "port": fallback_port},
            },
        },
        CircuitBreaker,
    )


def pod_key(name: str, namespace: str = "default") -> ObjectKey:
    return ObjectKey("Pod", namespace, name)


class SidecarState:
    """The state of a sidecar: it applies updates as the protocol defines, through JSON."""

    def __init__(self) -> None:
        self.version: int | None = None
        self.entries: dict[str, Any] = {}

    def take(self, update: Update) -> None:
        wire = msgspec.json.decode(msgspec.json.encode(update))
        assert wire["base"] in (None, self.version)
        if wire["base"] is None:
            self.entries = {}
        assert not wire["set"].keys() & set(wire["delete"])
        self.entries.update(wire["set"])
        for key in wire["delete"]:
            self.entries.pop(key, None)
        for name, endpoints in wire["endpoints"].items():
            cluster = self.entries[f"cluster/{name}"]
            for address, endpoint in endpoints.items():
                if endpoint is None:
                    cluster["endpoints"].pop(address, None)
                else:
                    cluster["endpoints"][address] = endpoint
        self.version = wire["version"]
