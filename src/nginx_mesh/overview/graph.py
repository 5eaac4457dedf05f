"""The graph of a mesh's traffic: its workloads, and the edges between them. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.values import MtlsMode
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.traffic.flows import Counts
from nginx_mesh.traffic.graph import GraphNode, node_of
from nginx_mesh.traffic.measure import Direction

from .edges import Traffic, request_document

REPLICATED = ("Deployment", "StatefulSet", "DaemonSet")
"""The kinds whose objects are in the graph even while they have no pod."""

_MOST_SILENT = 10

Totals = Mapping[tuple[GraphNode, Direction], Counts]


def pods_by_node(pods: Iterable[PodRecord]) -> dict[GraphNode, list[PodRecord]]:
    """The pods of each workload."""
    found: dict[GraphNode, list[PodRecord]] = {}
    for pod in pods:
        node = node_of(pod.metric_labels)
        if node is not None:
            found.setdefault(node, []).append(pod)
    return found


def replicas_by_node(workloads: Iterable[Resource]) -> dict[GraphNode, int]:
    """How many pods each of these workloads (of the kinds REPLICATED) shall have.

    The spec of a DaemonSet has no number; 0 stands for as many pods as there are.
    """
    found = {}
    for resource in workloads:
        kind, metadata = resource["kind"], resource["metadata"]
        replicas = 0 if kind == "DaemonSet" else int(resource["spec"].get("replicas", 1))
        found[GraphNode(metadata["namespace"], kind.lower(), metadata["name"])] = replicas
    return found


def totals(traffic: Traffic) -> Totals:
    """All requests of each workload over the window: those that it sent ("to") and those that it received ("from")."""
    found: dict[tuple[GraphNode, Direction], Counts] = {}
    for (source, destination), (window, _) in traffic.items():
        found.setdefault((source, "to"), Counts()).add(window.counts)
        found.setdefault((destination, "from"), Counts()).add(window.counts)
    return found


def workload_summary(
    node: GraphNode,
    pods: Collection[PodRecord],
    replicas: int | None,
    mtls_modes: Mapping[ObjectKey, MtlsMode],
    totals: Totals,
) -> Resource:
    """One node of the graph.

    `replicas` is None for a workload without an object of its own; `mtls_modes` has the pods that have a sidecar.
    """
    return {
        "id": str(node),
        "namespace": node.namespace,
        "kind": node.kind,
        "name": node.name,
        "pods": max(replicas or 0, len(pods)),
        "ready": sum(pod.ready for pod in pods),
        "meshed": bool(pods) and all(pod.meshed for pod in pods),
        "mtls_modes": sorted({mtls_modes[pod.key] for pod in pods if pod.key in mtls_modes}),
        "in": request_document(totals.get((node, "from"))),
        "out": request_document(totals.get((node, "to"))),
    }


def workload_summaries(
    pods: Iterable[PodRecord],
    replicas: Mapping[GraphNode, int],
    mtls_modes: Mapping[ObjectKey, MtlsMode],
    traffic: Traffic,
) -> list[Resource]:
    """Every node of the graph, sorted: workloads that have pods, an object or traffic."""
    by_node, sums = pods_by_node(pods), totals(traffic)
    nodes = {*by_node, *replicas, *(node for pair in traffic for node in pair)}
    return [
        workload_summary(node, by_node.get(node, []), replicas.get(node), mtls_modes, sums) for node in sorted(nodes)
    ]


def sidecar_summary(
    pods: Iterable[PodRecord], live: int, silent: AbstractSet[str], objects: Sequence[Resource]
) -> Resource:
    """How many sidecars there are, how many are `live`, and which were `silent` (uids of pods) at the last scrape.

    `objects` are the Pods as they are stored. Silent sidecars of pods that are gone are left out.
    """
    names = sorted(
        f"{metadata['namespace']}/{metadata['name']}"
        for metadata in (pod["metadata"] for pod in objects)
        if metadata["uid"] in silent
    )
    return {
        "all": sum(pod.meshed for pod in pods),
        "live": live,
        "silent": len(names),
        "silent_names": names[:_MOST_SILENT],
    }
