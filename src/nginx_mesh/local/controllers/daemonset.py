"""DaemonSets: the local mesh is one node, so one pod."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.resource import Resource

from .plan import Plan, PodView, new_pod, template_hash
from .statefulset import REVISION_LABEL


def plan_daemonset(workload: Resource, pods: Sequence[PodView], now: float) -> Plan:
    """Keep one pod of the present template; an outdated one is gone before its successor comes."""
    revision = template_hash(workload)
    live = [pod for pod in pods if not pod.terminating]
    outdated = [pod.name for pod in live if pod.labels.get(REVISION_LABEL) != revision]
    name = workload["metadata"]["name"]
    ready = sum(pod.ready for pod in live)
    return Plan(
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
