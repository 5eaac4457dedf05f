"""The edges of the traffic graph: requests and connections, mTLS, TrafficSplits and circuit breakers. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.catalog.routing import RoutingPolicies
from nginx_mesh.catalog.topology import Topology
from nginx_mesh.traffic.connections import Connections
from nginx_mesh.traffic.exposition import Series
from nginx_mesh.traffic.flows import Counts
from nginx_mesh.traffic.graph import Edge, GraphNode, NodePair, node_of, security

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_CIRCUIT_STATES = {0.0: "closed", 1.0: "open", 2.0: "half_open"}
"""By the value of the metric."""


class EdgeTraffic(NamedTuple):
    """The traffic of one edge per second: over the whole window, and `recent` over the last few seconds of it."""

    window: Edge
    recent: Edge


Traffic = Mapping[NodePair, EdgeTraffic]


def edge_documents(
    traffic: Traffic, splits: Mapping[str, Sequence[Resource]], circuits: Mapping[NodePair, Sequence[Resource]]
) -> list[Resource]:
    """All edges, sorted. `splits` are by backend (see `splits_by_backend`), `circuits` by edge.

    An edge without traffic is listed when a circuit of it is open, because the circuit explains the missing traffic.
    Security is that of the recent traffic, so that a change of the mTLS mode shows before the old traffic has left the
    window; when there is no recent traffic, it is that of the whole window.
    """
    without_traffic = {
        pair: EdgeTraffic(Edge(), Edge())
        for pair, states in circuits.items()
        if pair not in traffic and any(state["open"] or state["half_open"] for state in states)
    }
    return [
        {
            "from": str(source),
            "to": str(destination),
            "services": sorted(window.services),
            **(request_document(window.counts) or {"rate": 0.0, "success": None, **dict.fromkeys(_QUANTILES)}),
            "tcp": _connection_document(window.tcp),
            "security": security(window) if security(recent) == "unknown" else security(recent),
            "splits": [part for service in sorted(window.services) for part in splits.get(service, ())],
            "circuits": list(circuits.get((source, destination), ())),
        }
        for (source, destination), (window, recent) in sorted(
            {**traffic, **without_traffic}.items(), key=lambda item: item[0]
        )
    ]


def request_document(counts: Counts | None) -> Resource | None:
    """Requests per second, the share that succeeded and latency quantiles in milliseconds; None without requests."""
    if counts is None or (requests := counts.success + counts.failure) <= 0:
        return None
    quantiles = {name: counts.quantile(q) for name, q in _QUANTILES.items()}
    return {"rate": requests, "success": counts.success / requests, **quantiles}


def splits_by_backend(splits: RoutingPolicies[TrafficSplit]) -> dict[str, list[Resource]]:
    """The weights that TrafficSplits give to each backend ("namespace/service"), of those that apply."""
    found: dict[str, list[Resource]] = {}
    for policy in (splits.get(key) for key in sorted(splits.keys())):
        if policy is None:
            continue
        namespace, spec = policy.metadata.namespace, policy.spec
        if splits.effective(ObjectKey(Service.KIND, namespace, spec.service)) is not policy:
            continue  # an older TrafficSplit of the same root Service applies
        whole = sum(max(backend.weight, 0) for backend in spec.backends)
        for backend in spec.backends:
            found.setdefault(f"{namespace}/{backend.service}", []).append(
                {
                    "split": f"{namespace}/{policy.metadata.name}",
                    "root": spec.service,
                    "service": backend.service,
                    "weight": max(backend.weight, 0),
                    "whole": whole,
                    "matches": bool(spec.matches),
                }
            )
    return found


def circuits_by_edge(breakers: Iterable[Mapping[Series, float]], topology: Topology) -> dict[NodePair, list[Resource]]:
    """The circuits of each edge: for each, how many of the callers' sidecars have it closed, open and half-open.

    `breakers` has the circuit breaker metrics of each sidecar.
    """
    found: dict[NodePair, dict[tuple[str, str], Resource]] = {}
    for states in breakers:
        for (_, pairs), value in states.items():
            labels = dict(pairs)
            caller, breaker, upstream = node_of(labels), labels.get("breaker", ""), labels.get("upstream", "")
            for server in _nodes_behind(upstream, topology):
                if caller is None or server == caller:
                    continue
                circuit = found.setdefault((caller, server), {}).setdefault(
                    (breaker, upstream),
                    {"breaker": breaker, "service": upstream} | dict.fromkeys(_CIRCUIT_STATES.values(), 0),
                )
                circuit[_CIRCUIT_STATES.get(value, "closed")] += 1
    return {pair: [by_name[name] for name in sorted(by_name)] for pair, by_name in found.items()}


def _nodes_behind(upstream: str, topology: Topology) -> set[GraphNode]:
    """The workloads behind "namespace/service:port"."""
    namespace, _, rest = upstream.partition("/")
    keys = topology.pods_behind(ObjectKey(Service.KIND, namespace, rest.rpartition(":")[0]))
    pods = (topology.pod(key) for key in keys)
    return {node for pod in pods if pod is not None and (node := node_of(pod.metric_labels)) is not None}


def _connection_document(tcp: Connections) -> Resource | None:
    """Connections and bytes per second and the share of connections that succeeded; None without any."""
    if tcp.tried <= 0 and tcp.sent + tcp.received <= 0:
        return None
    success = max(0.0, 1 - tcp.failed / tcp.tried) if tcp.tried > 0 else None
    return {"rate": tcp.tried, "success": success, "bytes": tcp.sent + tcp.received}
