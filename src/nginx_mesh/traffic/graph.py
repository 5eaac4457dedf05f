"""Traffic as a graph: its nodes are workloads, its edges requests and connections between two of them.

Counts are per second here (see `History.rates`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .connections import Connections, TcpFlow
from .flows import Counts, Flow

# A node is of the first of these kinds that the labels of a pod name.
_KINDS = ("deployment", "statefulset", "daemonset", "replicaset", "replicationcontroller", "job", "pod", "service")

Security = Literal["mtls", "plaintext", "mixed", "unproved", "unknown"]
"""How requests were sent: `unproved` is mTLS of which no request was answered, `unknown` is no request at all."""


@dataclass(frozen=True, slots=True, order=True)
class GraphNode:
    """A workload, or a Service whose endpoints are not pods of this mesh."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"


NodePair = tuple[GraphNode, GraphNode]
"""The caller and the server."""


@dataclass(slots=True)
class Edge:
    """Requests and TCP connections of one node to another. `services` ("namespace/name") are those of its endpoints."""

    counts: Counts = field(default_factory=Counts)
    tcp: Connections = field(default_factory=Connections)
    services: set[str] = field(default_factory=set)


def node_of(labels: Mapping[str, str]) -> GraphNode | None:
    """The node that the labels of one end of a Flow belong to; None when they name none."""
    for kind in _KINDS:
        if name := labels.get(kind):
            return GraphNode(labels.get("namespace", ""), kind, name)
    return None


def edges(flows: Iterable[Flow], tcp: Iterable[TcpFlow] = ()) -> dict[NodePair, Edge]:
    """The edges that these flows make. A flow is left out when one of its ends is no node."""
    found: dict[NodePair, Edge] = {}
    for flow in flows:
        edge = _edge(found, flow.source, flow.destination)
        if edge is not None:
            edge.counts.add(flow.counts)
    for tcp_flow in tcp:
        edge = _edge(found, tcp_flow.source, tcp_flow.destination)
        if edge is not None:
            edge.tcp.add(tcp_flow.connections)
    return found


def security(edge: Edge) -> Security:
    """How the requests and connections of an edge were sent."""
    counts, tcp = edge.counts, edge.tcp
    calls = counts.success + counts.failure + tcp.tried
    if calls <= 0:
        return "unknown"
    # Both are sums of quotients, which are equal only up to rounding.
    share = (counts.mtls + tcp.mtls) / calls
    if share < 1e-6:
        return "plaintext"
    if share < 1 - 1e-6:
        return "mixed"
    return "mtls" if calls - counts.unanswered - tcp.failed > 1e-9 * calls else "unproved"


def _edge(found: dict[NodePair, Edge], source: Mapping[str, str], destination: Mapping[str, str]) -> Edge | None:
    caller, server = node_of(source), node_of(destination)
    if caller is None or server is None:
        return None
    edge = found.setdefault((caller, server), Edge())
    if service := destination.get("service"):
        edge.services.add(f"{server.namespace}/{service}")
    return edge
