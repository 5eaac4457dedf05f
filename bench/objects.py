"""The benchmark's meshes as Kubernetes objects, and the states that the compiler makes of them for their sidecars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from bench.certs import TRUST_DOMAIN, Certificates, Svid
from nginx_mesh.api.annotations import INJECTED, LB_METHOD, SIDECAR_CONTAINER, STATUS
from nginx_mesh.api.kinds import decode
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.values import HostPort
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Upsert
from nginx_mesh.compile.engine import compile_state
from nginx_mesh.protocol.state import Identity, State

NAMESPACE = "bench"

# Sidecars never call it: the node does, and there is none here.
_COLLECTOR = HostPort("collector.example", 4317)

_API_VERSIONS = {
    "CircuitBreaker": "specs.smi.nginx.com/v1alpha1",
    "HTTPRouteGroup": "specs.smi-spec.io/v1alpha3",
    "RateLimit": "specs.smi.nginx.com/v1alpha2",
    "TrafficSplit": "split.smi-spec.io/v1alpha3",
    "TrafficTarget": "access.smi-spec.io/v1alpha2",
}


def pod(name: str, address: str, workload: str, *, port: int, labels: Mapping[str, str] | None = None) -> Object:
    """A pod with a sidecar, of the Deployment `workload`, whose service account has the same name."""
    metadata = {
        "annotations": {STATUS: INJECTED},
        "labels": {"app": workload, **(labels or {})},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": workload, "controller": True}],
    }
    containers = [
        {"name": "app", "ports": [{"containerPort": port, "name": "http"}]},
        {"name": SIDECAR_CONTAINER},
    ]
    return _decoded(
        "v1",
        "Pod",
        name,
        metadata,
        spec={"serviceAccountName": workload, "containers": containers},
        status={
            "phase": "Running",
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    )


def service(
    name: str, address: str, port: int, target: int, selector: Mapping[str, str], *, lb_method: str = "least_time"
) -> Object:
    """A Service that speaks HTTP at `address`:`port`, and is what `selector` selects at the port `target`."""
    spec = {
        "clusterIP": address,
        "clusterIPs": [address],
        "selector": dict(selector),
        "ports": [{"name": "http", "port": port, "targetPort": target}],
    }
    return _decoded("v1", "Service", name, {"annotations": {LB_METHOD: lb_method}}, spec=spec)


def routes(name: str, path_regex: str) -> Object:
    """An HTTPRouteGroup with one match."""
    return _policy("HTTPRouteGroup", name, matches=[{"name": "all", "pathRegex": path_regex, "methods": ["GET"]}])


def target(name: str, destination: str, source: str, group: str) -> Object:
    """A TrafficTarget: `source` may do with `destination` what the HTTPRouteGroup matches."""
    account = "ServiceAccount"
    return _policy(
        "TrafficTarget",
        name,
        destination={"kind": account, "name": destination},
        sources=[{"kind": account, "name": source}],
        rules=[{"kind": "HTTPRouteGroup", "name": group}],
    )


def unreached_limit(name: str, destination: str, source: str = "", group: str = "") -> Object:
    """A RateLimit of a Service that no load reaches, for all callers or what a Deployment asks by an HTTPRouteGroup."""
    return _policy(
        "RateLimit",
        name,
        name=name,
        rate="1000000r/s",
        burst=1_000_000,
        delay="nodelay",
        destination={"kind": "Service", "name": destination},
        sources=[{"kind": "Deployment", "name": source}] if source else [],
        rules=[{"kind": "HTTPRouteGroup", "name": group}] if group else [],
    )


def split(name: str, root: str, backends: Mapping[str, int], group: str) -> Object:
    """A TrafficSplit of what the HTTPRouteGroup matches."""
    shares = [{"service": backend, "weight": weight} for backend, weight in backends.items()]
    return _policy(
        "TrafficSplit", name, service=root, backends=shares, matches=[{"kind": "HTTPRouteGroup", "name": group}]
    )


def breaker(name: str, destination: str) -> Object:
    """A CircuitBreaker of a Service; no load fails."""
    where = {"kind": "Service", "name": destination}
    return _policy("CircuitBreaker", name, destination=where, errors=5, timeoutSeconds=30)


class States(NamedTuple):
    """What the sidecars of a pair run."""

    client: State
    server: State


def states(mesh: Iterable[Object], certificates: Certificates, *, sampler_ratio: float | None = None) -> States:
    """What the compiler gives the sidecars of the pods `client` and `server-0` in a strict mesh.

    With a `sampler_ratio` it exports that share of traces.
    """
    catalog = Catalog()
    for each in mesh:
        catalog.apply(Upsert(each))
    settings = MeshSettings(mtls_mode="strict", trust_domain=TRUST_DOMAIN)
    if sampler_ratio is not None:
        settings = msgspec.structs.replace(settings, otlp=_COLLECTOR, sampler_ratio=sampler_ratio)

    def state(name: str, svid: Svid) -> State:
        identity = Identity(spiffe_id=svid.spiffe_id, svid=svid.certificate, key=svid.key, bundle=certificates.root)
        found = compile_state(catalog, settings, ObjectKey("Pod", NAMESPACE, name))
        if found is None:
            raise ValueError(f"there is no pod {name} with a sidecar")
        found["identity"] = identity
        return found

    return States(state("client", certificates.client), state("server-0", certificates.server))


def _policy(kind: str, name: str, /, **spec: Any) -> Object:
    return _decoded(_API_VERSIONS[kind], kind, name, {}, spec=spec)


def _decoded(version: str, kind: str, name: str, metadata: Mapping[str, Any], **parts: Any) -> Object:
    named = {"name": name, "namespace": NAMESPACE, **metadata}
    return decode({"apiVersion": version, "kind": kind, "metadata": named, **parts})
