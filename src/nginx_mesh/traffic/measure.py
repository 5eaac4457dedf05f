"""Adds up flows for the resources of the Traffic Metrics API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .flows import Counts, Flow

Direction = Literal["to", "from"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource that has traffic metrics. `label` is the label of the sidecars' metrics that names it."""

    plural: str
    kind: str
    label: str

    @property
    def namespaced(self) -> bool:
        """Whether resources of this kind are in a namespace."""
        return self.label != "namespace"


NAMESPACES = Kind("namespaces", "Namespace", "namespace")
PODS = Kind("pods", "Pod", "pod")
_WORKLOADS = (
    Kind("deployments", "Deployment", "deployment"),
    Kind("statefulsets", "StatefulSet", "statefulset"),
    Kind("daemonsets", "DaemonSet", "daemonset"),
)
KINDS: Mapping[str, Kind] = {kind.plural: kind for kind in (NAMESPACES, PODS, *_WORKLOADS)}
"""All kinds, by their plural in the API."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A resource; `namespace` is empty for a namespace itself."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class TrafficQuery:
    """The resources that a request for traffic metrics is about. An empty namespace or name means all of them.

    With `edges`, metrics are by peer. Peers are of the same kind as the resource; those of a workload are workloads of
    any kind.
    """

    kind: Kind
    namespace: str = ""
    name: str = ""
    edges: bool = False

    @property
    def peers(self) -> tuple[Kind, ...]:
        """The kinds that peers may have."""
        return _WORKLOADS if self.edges and self.kind in _WORKLOADS else (self.kind,)

    @property
    def resource(self) -> Reference:
        """The resource in question. An empty namespace or name stands for all of them."""
        return Reference(self.kind.kind, self.namespace, self.name)

    def is_about(self, resource: Reference) -> bool:
        """Whether a resource of this kind is one of those in question."""
        return self.namespace in ("", resource.namespace) and self.name in ("", resource.name)


@dataclass(frozen=True, slots=True)
class Measured:
    """The requests of a resource to other resources or from them: all requests, or those of one edge with `peer`."""

    resource: Reference
    direction: Direction
    peer: Reference | None
    counts: Counts


def measure(flows: Iterable[Flow], question: TrafficQuery) -> list[Measured]:
    """The answer to a question, sorted by resource, direction and peer."""
    found: dict[tuple[Reference, Direction, Reference | None], Counts] = {}
    for flow in flows:
        for direction, own, other in _ends(flow):
            resource, peer = _reference(own, question.kind), None
            if resource is None or not question.is_about(resource):
                continue
            if question.edges:
                peer = next(filter(None, (_reference(other, kind) for kind in question.peers)), None)
                if peer is None:
                    continue
            found.setdefault((resource, direction, peer), Counts()).add(flow.counts)
    return [Measured(*key, found[key]) for key in sorted(found, key=_order)]


def _order(key: tuple[Reference, Direction, Reference | None]) -> tuple[Any, ...]:
    resource, direction, peer = key
    return resource, direction, peer or resource


def _ends(flow: Flow) -> tuple[tuple[Direction, Mapping[str, str], Mapping[str, str]], ...]:
    return ("to", flow.source, flow.destination), ("from", flow.destination, flow.source)


def _reference(labels: Mapping[str, str], kind: Kind) -> Reference | None:
    name = labels.get(kind.label, "")
    if not name:
        return None
    return Reference(kind.kind, labels.get("namespace", "") if kind.namespaced else "", name)
