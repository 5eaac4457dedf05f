"""Jobs: pods that run until enough of them have succeeded."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.resource import Resource
from nginx_mesh.api.times import rfc3339

from .plan import PodView, WorkloadPlan, new_pod

_BACKOFF_SECONDS = 10.0
_BACKOFF_LIMIT_SECONDS = 360.0


def plan_job(job: Resource, pods: Sequence[PodView], now: float) -> WorkloadPlan:
    """Run up to `parallelism` pods until `completions` have succeeded or more than `backoffLimit` have failed.

    After a failed pod the next one waits 10 s, doubling with every failure up to 6 minutes.
    """
    spec, old = job["spec"], job.get("status", {})
    live = [pod for pod in pods if not pod.terminating]
    active = [pod for pod in live if pod.phase not in ("Succeeded", "Failed")]
    failed = [pod for pod in live if pod.phase == "Failed"]
    succeeded = sum(pod.phase == "Succeeded" for pod in live)
    completions: int = spec.get("completions", 1)
    status: Resource = {
        "active": len(active),
        "succeeded": succeeded,
        "failed": len(failed),
        "startTime": old.get("startTime", rfc3339(now)),
    }
    if conditions := old.get("conditions"):
        ended = {
            "conditions": conditions,
            **({"completionTime": old["completionTime"]} if "completionTime" in old else {}),
        }
        return WorkloadPlan(delete=[pod.name for pod in active], status=status | ended)
    if succeeded >= completions:
        done = {"conditions": [{"type": "Complete", "status": "True"}], "completionTime": rfc3339(now)}
        return WorkloadPlan(delete=[pod.name for pod in active], status=status | done)
    if len(failed) + sum(pod.restarts for pod in active) > spec.get("backoffLimit", 6):
        condition = {
            "type": "Failed",
            "status": "True",
            "reason": "BackoffLimitExceeded",
            "message": "Job has reached the specified backoff limit",
        }
        return WorkloadPlan(delete=[pod.name for pod in active], status=status | {"conditions": [condition]})

    missing = min(spec.get("parallelism", 1), completions - succeeded) - len(active)
    wait = _backoff(failed, now)
    if missing <= 0 or wait > 0:
        return WorkloadPlan(status=status, retry_after=wait or None)
    name = job["metadata"]["name"]
    labels = {"job-name": name, "batch.kubernetes.io/job-name": name}
    create = [new_pod(job, {"generateName": f"{name}-"}, labels=labels) for _ in range(missing)]
    return WorkloadPlan(create=create, status=status)


def _backoff(failed: Sequence[PodView], now: float) -> float:
    """Seconds until the next try."""
    if not failed:
        return 0.0
    delay = min(_BACKOFF_SECONDS * 2.0 ** (len(failed) - 1), _BACKOFF_LIMIT_SECONDS)
    # Never wait for longer than the delay, even if the clock has been set back since.
    return min(delay, max(0.0, max(pod.finished or 0.0 for pod in failed) + delay - now))
