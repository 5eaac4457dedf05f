"""ReplicaSets and ReplicationControllers: a number of pods, which a new template does not replace."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.resource import Resource

from .plan import PodView, WorkloadPlan, expendable_first, new_pod, replica_status


def plan_replicaset(workload: Resource, pods: Sequence[PodView], now: float) -> WorkloadPlan:
    """Keep `replicas` pods."""
    replicas: int = workload["spec"].get("replicas", 1)
    live = expendable_first(pod for pod in pods if not pod.terminating)
    name = workload["metadata"]["name"]
    return WorkloadPlan(
        create=[new_pod(workload, {"generateName": f"{name}-"}, labels={}) for _ in range(replicas - len(live))],
        delete=[pod.name for pod in live[: max(0, len(live) - replicas)]],
        status=replica_status(workload, live),
    )
