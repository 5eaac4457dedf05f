"""Who calls whom, as a graph of workloads. Counts are per second here (see `History.rates`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

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
    """Requests of one node to another. `services` ("namespace/name") are those whose endpoints answered."""

    counts: Counts = field(default_factory=Counts)
    services: set[str] = field(default_factory=set)


def node_of(labels: Mapping[str, str]) -> Node | None:
    """Whose labels these are: those of one end of a Flow."""
    for kind in KINDS:
        if name := labels.get(kind):
            return Node(labels.get("namespace", ""), kind, name)
    return None


def links(flows: Iterable[Flow]) -> dict[tuple[Node, Node], Link]:
    """Flows by the nodes at their ends; those of nobody are left out."""
    found: dict[tuple[Node, Node], Link] = {}
    for flow in flows:
        source, destination = node_of(flow.source), node_of(flow.destination)
        if source is None or destination is None:
            continue
        link = found.setdefault((source, destination), Link())
        link.counts.add(flow.counts)
        if service := flow.destination.get("service"):
            link.services.add(f"{destination.namespace}/{service}")
    return found


def security(counts: Counts) -> Security:
    """How these requests went."""
    requests = counts.success + counts.failure
    if requests <= 0:
        return "unknown"
    # Sums of quotients: equal up to rounding.
    share = counts.mtls / requests
    if share < 1e-6:
        return "plaintext"
    if share < 1 - 1e-6:
        return "mixed"
    return "mtls" if requests - counts.unanswered > 1e-9 * requests else "unproved"
