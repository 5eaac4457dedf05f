"""Flows summed up for the resources of the Traffic Metrics API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

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
class Measured:
    """Requests of a resource to others or from them: all, or (with `peer`) those of one edge."""

    resource: Reference
    direction: Direction
    peer: Reference | None
    counts: Counts


def totals(flows: Iterable[Flow], kind: Kind, namespace: str = "", name: str = "") -> list[Measured]:
    """What came from and went to each resource of a kind; of one namespace, and of one name, where they are given."""
    found: dict[tuple[Reference, Direction], Counts] = {}
    for flow in flows:
        for direction, own, _ in _ends(flow):
            resource = _reference(own, kind)
            if resource is not None and _is_asked(resource, namespace, name):
                found.setdefault((resource, direction), Counts()).add(flow.counts)
    return [Measured(resource, direction, None, found[resource, direction]) for resource, direction in sorted(found)]


def edges(flows: Iterable[Flow], kind: Kind, namespace: str, name: str) -> list[Measured]:
    """What came from and went to each peer of one resource.

    Peers are of its kind; those of a workload are workloads of any kind.
    """
    found: dict[tuple[Reference, Direction, Reference], Counts] = {}
    for flow in flows:
        for direction, own, other in _ends(flow):
            resource = _reference(own, kind)
            if resource is None or not _is_asked(resource, namespace, name):
                continue
            kinds = _WORKLOADS if kind in _WORKLOADS else (kind,)
            peer = next(filter(None, (_reference(other, peer_kind) for peer_kind in kinds)), None)
            if peer is not None:
                found.setdefault((resource, direction, peer), Counts()).add(flow.counts)
    return [Measured(*edge, found[edge]) for edge in sorted(found)]


def _ends(flow: Flow) -> tuple[tuple[Direction, Mapping[str, str], Mapping[str, str]], ...]:
    return ("to", flow.source, flow.destination), ("from", flow.destination, flow.source)


def _reference(labels: Mapping[str, str], kind: Kind) -> Reference | None:
    name = labels.get(kind.label, "")
    if not name:
        return None
    return Reference(kind.kind, labels.get("namespace", "") if kind.namespaced else "", name)


def _is_asked(resource: Reference, namespace: str, name: str) -> bool:
    return (not namespace or resource.namespace == namespace) and (not name or resource.name == name)
