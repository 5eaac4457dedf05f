"""Deployments: their pods have a label with the hash of their template. There are no ReplicaSets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nginx_mesh.api.resource import Resource

from .plan import PodView, WorkloadPlan, expendable_first, new_pod, replica_status, template_hash

HASH_LABEL = "pod-template-hash"


def plan_deployment(deployment: Resource, pods: Sequence[PodView], now: float) -> WorkloadPlan:
    """Move towards `replicas` pods of the present template, within maxSurge and maxUnavailable."""
    spec = deployment["spec"]
    replicas: int = spec.get("replicas", 1)
    revision = template_hash(deployment)
    live = [pod for pod in pods if not pod.terminating]
    current = [pod for pod in live if pod.labels.get(HASH_LABEL) == revision]
    outdated = expendable_first(pod for pod in live if pod.labels.get(HASH_LABEL) != revision)

    delete = expendable_first(current)[: max(0, len(current) - replicas)]
    missing = replicas - len(current)
    if spec.get("strategy", {}).get("type") == "Recreate":
        delete += outdated
        if outdated or any(pod.labels.get(HASH_LABEL) != revision for pod in pods):
            missing = 0
    else:
        surge, unavailable = rolling_bounds(spec.get("strategy", {}).get("rollingUpdate", {}), replicas)
        missing = min(missing, replicas + surge - len(live))
        idle = [pod for pod in outdated if not pod.ready]
        spare = max(0, sum(pod.ready for pod in live) - (replicas - unavailable))
        delete += idle + outdated[len(idle) :][:spare]

    name = deployment["metadata"]["name"]
    create = [
        new_pod(deployment, {"generateName": f"{name}-{revision}-"}, labels={HASH_LABEL: revision})
        for _ in range(max(0, missing))
    ]
    status = {**replica_status(deployment, live), "updatedReplicas": len(current)}
    return WorkloadPlan(create=create, delete=[pod.name for pod in delete], status=status)


def rolling_bounds(rolling: Resource, replicas: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as numbers of pods; percentages round up and down, and both are never 0."""
    surge = _amount(rolling.get("maxSurge", "25%"), replicas, math.ceil)
    unavailable = _amount(rolling.get("maxUnavailable", "25%"), replicas, math.floor)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _amount(value: int | str, replicas: int, rounded: Callable[[float], int]) -> int:
    return value if isinstance(value, int) else rounded(int(value.removesuffix("%")) * replicas / 100)
