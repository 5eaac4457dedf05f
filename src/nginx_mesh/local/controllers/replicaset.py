"""ReplicaSets and ReplicationControllers: so many pods, never replaced because of a new template."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.resource import Resource

from .plan import Plan, PodView, expendable_first, new_pod, replica_status


def plan_replicaset(workload: Resource, pods: Sequence[PodView], now: float) -> Plan:
    """Keep `replicas` pods."""
    replicas: int = workload["spec"].get("replicas", 1)
    live = expendable_first(pod for pod in pods if not pod.terminating)
    name = workload["metadata"]["name"]
    return Plan(
        create=[new_pod(workload, {"generateName": f"{name}-"}, labels={}) for _ in range(replicas - len(live))],
        delete=[pod.name for pod in live[: max(0, len(live) - replicas)]],
        status=replica_status(workload, live),
    )
