"""One workload: its pods with their identities, the policies that concern it, and its events. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from nginx_mesh.api.conditions import IN_FORCE, find_condition, is_ready
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.smi import TrafficSplit, TrafficTarget
from nginx_mesh.api.values import MtlsMode
from nginx_mesh.api.workloadkinds import WORKLOADS
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.traffic.graph import GraphNode

_KINDS = {kind.lower(): kind for kind in WORKLOADS}
_IDENTITY = ("spiffe_id", "dns_names", "serial", "issuer", "not_after", "renew_at")


def key_of_node(node: GraphNode) -> ObjectKey | None:
    """The workload's key; None for a node that is a Service."""
    kind = _KINDS.get(node.kind)
    return None if kind is None else ObjectKey(kind, node.namespace, node.name)


def pod_document(
    resource: Resource, pod: PodRecord, mtls_mode: MtlsMode | None, silent: str | None, identity: Resource
) -> Resource:
    """One pod, as it is stored and as the catalog has it.

    `mtls_mode` is None for a pod without a sidecar. `silent` is why its sidecar gave no metrics at the last scrape.
    `identity` is the SVID of the pod and its times, empty when it has none.
    """
    status = resource.get("status", {})
    return {
        "name": pod.key.name,
        "phase": _phase(resource),
        "ready": is_ready(resource),
        "restarts": sum(container.get("restartCount", 0) for container in status.get("containerStatuses", [])),
        "started": resource["metadata"]["creationTimestamp"],
        "addresses": [address["ip"] for address in status.get("podIPs", [])],
        "meshed": pod.meshed,
        "mtls_mode": mtls_mode,
        "silent": silent,
        "identity": {name: identity[name] for name in _IDENTITY if identity.get(name)},
    }


def policies_of(
    node: GraphNode, servers: Iterable[GraphNode], enforced: AbstractSet[ObjectKey], catalog: Catalog
) -> list[ObjectKey]:
    """The traffic policies that concern a workload, sorted.

    Of the policies that its own sidecars enforce (`enforced`), these are all but TrafficSplits and CircuitBreakers: a
    sidecar has those of every Service that it may call. Of these two kinds only the ones count that name a Service of
    the workload itself, or of the workloads that it calls (`servers`).
    """
    topology, policies = catalog.topology, catalog.policies
    pods = {pod for each in (node, *servers) if (key := key_of_node(each)) for pod in topology.pods_behind(key)}
    services = {service for pod in pods for service in topology.services_of(pod)}
    diversions = (policies.splits, policies.breakers)
    diverting = {key for service in services for kind in diversions for key in kind.naming(service)}
    return sorted((enforced - policies.splits.keys() - policies.breakers.keys()) | diverting)


def policy_document(policy: Resource) -> Resource:
    """A traffic policy, and whether it is in force."""
    condition = find_condition(policy.get("status", {}), IN_FORCE)
    return {
        "kind": policy["kind"],
        "namespace": policy["metadata"]["namespace"],
        "name": policy["metadata"]["name"],
        "in_force": condition.get("status", "Unknown"),
        "reason": condition.get("reason", ""),
        "message": condition.get("message", ""),
        "says": _rule(policy),
    }


def events_of(events: Iterable[Resource], node: GraphNode, pods: AbstractSet[ObjectKey]) -> list[Resource]:
    """The events that are about a workload or one of its pods."""
    keys = {*pods, key_of_node(node)}
    return [event for event in events if _involved(event["involvedObject"]) in keys]


def _involved(reference: Mapping[str, str]) -> ObjectKey:
    return ObjectKey(reference["kind"], reference["namespace"], reference["name"])


def _phase(pod: Resource) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    return str(pod.get("status", {}).get("phase", "Pending"))


def _rule(policy: Resource) -> str:
    """What a policy does, in one line."""
    spec = policy.get("spec", {})
    match policy["kind"]:
        case TrafficSplit.KIND:
            backends = ", ".join(f"{backend['service']} {backend['weight']}" for backend in spec.get("backends", []))
            return f"{spec.get('service', '')} → {backends}"
        case CircuitBreaker.KIND:
            return f"{spec.get('errors')} errors within {spec.get('timeoutSeconds')} s open it"
        case RateLimit.KIND:
            return str(spec.get("rate", ""))
        case TrafficTarget.KIND:
            return "from " + ", ".join(source.get("name", "") for source in spec.get("sources", []))
    return ""
