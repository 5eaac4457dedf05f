"""Who calls whom, as a graph of workloads. Counts are per second here (see `History.rates`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .connections import Carried, Connections
from .flows import Counts, Flow

KINDS = ("deployment", "statefulset", "daemonset", "replicaset", "replicationcontroller", "job", "pod", "service")
"""What a node may be, the first that labels name. A Service is one whose endpoints are no pods of this mesh."""

Security = Literal["mtls", "plaintext", "mixed", "unproved", "unknown"]
"""How requests went: `unproved` by mTLS, but none was answered; `unknown` when there were none."""


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A workload, or what stands for one."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"


@dataclass(slots=True)
class Link:
    """Requests and connections of one node to another. `services` ("namespace/name") are those with its endpoints."""

    counts: Counts = field(default_factory=Counts)
    tcp: Connections = field(default_factory=Connections)
    services: set[str] = field(default_factory=set)


def node_of(labels: Mapping[str, str]) -> Node | None:
    """Whose labels these are: those of one end of a Flow."""
    for kind in KINDS:
        if name := labels.get(kind):
            return Node(labels.get("namespace", ""), kind, name)
    return None


def links(flows: Iterable[Flow], tcp: Iterable[Carried] = ()) -> dict[tuple[Node, Node], Link]:
    """Traffic by the nodes at its ends; that of nobody is left out."""
    found: dict[tuple[Node, Node], Link] = {}
    for flow in flows:
        link = _link(found, flow.source, flow.destination)
        if link is not None:
            link.counts.add(flow.counts)
    for each in tcp:
        link = _link(found, each.source, each.destination)
        if link is not None:
            link.tcp.add(each.connections)
    return found


def security(link: Link) -> Security:
    """How these requests and connections went."""
    counts, tcp = link.counts, link.tcp
    calls = counts.success + counts.failure + tcp.tried
    if calls <= 0:
        return "unknown"
    # Sums of quotients: equal up to rounding.
    share = (counts.mtls + tcp.mtls) / calls
    if share < 1e-6:
        return "plaintext"
    if share < 1 - 1e-6:
        return "mixed"
    return "mtls" if calls - counts.unanswered - tcp.failed > 1e-9 * calls else "unproved"


def _link(
    found: dict[tuple[Node, Node], Link], source: Mapping[str, str], destination: Mapping[str, str]
) -> Link | None:
    ends = node_of(source), node_of(destination)
    if ends[0] is None or ends[1] is None:
        return None
    link = found.setdefault((ends[0], ends[1]), Link())
    if service := destination.get("service"):
        link.services.add(f"{ends[1].namespace}/{service}")
    return link
