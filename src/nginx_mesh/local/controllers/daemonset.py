"""DaemonSets: one pod, as the local mesh has one node."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.resource import Resource

from .plan import PodView, WorkloadPlan, new_pod, template_hash
from .statefulset import REVISION_LABEL


def plan_daemonset(workload: Resource, pods: Sequence[PodView], now: float) -> WorkloadPlan:
    """Keep one pod of the present template. An outdated pod must be gone before its successor is created."""
    revision = template_hash(workload)
    live = [pod for pod in pods if not pod.terminating]
    outdated = [pod.name for pod in live if pod.labels.get(REVISION_LABEL) != revision]
    name = workload["metadata"]["name"]
    ready = sum(pod.ready for pod in live)
    return WorkloadPlan(
        create=[] if pods else [new_pod(workload, {"generateName": f"{name}-"}, labels={REVISION_LABEL: revision})],
        delete=outdated,
        status={
            "observedGeneration": workload["metadata"]["generation"],
            "desiredNumberScheduled": 1,
            "currentNumberScheduled": len(live),
            "updatedNumberScheduled": len(live) - len(outdated),
            "numberReady": ready,
            "numberAvailable": ready,
        },
    )
