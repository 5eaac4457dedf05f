"""Flows summed up for the resources of the Traffic Metrics API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .flows import Counts, Flow

Direction = Literal["to", "from"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource that traffic is measured of. `label` is what metrics call it."""

    plural: str
    kind: str
    label: str

    @property
    def namespaced(self) -> bool:
        """Whether its resources are in namespaces."""
        return self.label != "namespace"


NAMESPACES = Kind("namespaces", "Namespace", "namespace")
PODS = Kind("pods", "Pod", "pod")
_WORKLOADS = (
    Kind("deployments", "Deployment", "deployment"),
    Kind("statefulsets", "StatefulSet", "statefulset"),
    Kind("daemonsets", "DaemonSet", "daemonset"),
)
KINDS: Mapping[str, Kind] = {kind.plural: kind for kind in (NAMESPACES, PODS, *_WORKLOADS)}
"""All of them, by the plural that the API has."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A resource; `namespace` is empty for a namespace itself."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to know: of a kind, of one namespace and of one name, where they are given.

    With `edges` by peers, which are of the same kind; those of a workload are workloads of any kind.
    """

    kind: Kind
    namespace: str = ""
    name: str = ""
    edges: bool = False

    @property
    def peers(self) -> tuple[Kind, ...]:
        """What the other ends may be."""
        return _WORKLOADS if self.edges and self.kind in _WORKLOADS else (self.kind,)

    @property
    def resource(self) -> Reference:
        """What it is about; empty parts are any."""
        return Reference(self.kind.kind, self.namespace, self.name)

    def is_about(self, resource: Reference) -> bool:
        """Whether a resource of the kind is meant."""
        return self.namespace in ("", resource.namespace) and self.name in ("", resource.name)


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests of a resource to others or from them: all, or (with `peer`) those of one edge."""

    resource: Reference
    direction: Direction
    peer: Reference | None
    counts: Counts


def measure(flows: Iterable[Flow], question: Question) -> list[Measured]:
    """The answer to a question, in the order of resources, directions and peers."""
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
