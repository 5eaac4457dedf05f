"""StatefulSets: pods with stable names, started, replaced and stopped one at a time."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.resource import Resource

from .plan import PodView, WorkloadPlan, new_pod, replica_status, template_hash

REVISION_LABEL = "controller-revision-hash"


def plan_statefulset(workload: Resource, pods: Sequence[PodView], now: float) -> WorkloadPlan:
    """Take one step towards the pods `<name>-0` … `<name>-(replicas-1)`.

    A pod is created when those before it are ready. Updates start at the highest ordinal. An outdated pod that is not
    ready is replaced at once, so that a corrected template repairs a set that cannot become ready.
    """
    spec, name = workload["spec"], workload["metadata"]["name"]
    revision = f"{name}-{template_hash(workload)}"
    by_name = {pod.name: pod for pod in pods}
    wanted = [f"{name}-{ordinal}" for ordinal in range(spec.get("replicas", 1))]
    live = [pod for pod in pods if not pod.terminating]
    status = {
        **replica_status(workload, live),
        "updatedReplicas": sum(pod.labels.get(REVISION_LABEL) == revision for pod in live),
    }

    for pod_name in wanted:
        pod = by_name.get(pod_name)
        if pod is None:
            identity = {REVISION_LABEL: revision, "statefulset.kubernetes.io/pod-name": pod_name}
            created = new_pod(
                workload,
                {"name": pod_name},
                labels=identity,
                hostname=pod_name,
                subdomain=spec.get("serviceName", ""),
            )
            return WorkloadPlan(create=[created], status=status)
        if pod.terminating:
            return WorkloadPlan(status=status)
        if not pod.ready:
            stale = pod.labels.get(REVISION_LABEL) != revision
            return WorkloadPlan(delete=[pod_name] if stale else [], status=status)

    surplus = sorted((pod.name for pod in pods if pod.name not in wanted), key=_ordinal)
    if surplus:
        return WorkloadPlan(delete=[] if by_name[surplus[-1]].terminating else [surplus[-1]], status=status)
    for pod_name in reversed(wanted):
        if by_name[pod_name].labels.get(REVISION_LABEL) != revision:
            return WorkloadPlan(delete=[pod_name], status=status)
    return WorkloadPlan(status=status)


def _ordinal(pod_name: str) -> int:
    return int(pod_name.rpartition("-")[2])
