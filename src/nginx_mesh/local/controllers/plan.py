"""What the workload controllers share: their view of a pod, and the plan that they make."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from nginx_mesh.api.resource import Resource


@dataclass(frozen=True, kw_only=True)
class PodView:
    """A pod as its controller sees it. `finished` is the time of its end, in seconds since the epoch."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    phase: str = "Pending"
    ready: bool = False
    terminating: bool = False
    restarts: int = 0
    finished: float | None = None

    @classmethod
    def of(cls, pod: Resource) -> PodView:
        """The view of a stored pod."""
        metadata, status = pod["metadata"], pod.get("status", {})
        conditions = status.get("conditions", [])
        phase = status.get("phase", "Pending")
        ended = max((c.get("lastTransitionTime", "") for c in conditions), default="")
        return cls(
            name=metadata["name"],
            labels=metadata.get("labels", {}),
            created=metadata["creationTimestamp"],
            phase=phase,
            ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
            terminating="deletionTimestamp" in metadata,
            restarts=sum(c.get("restartCount", 0) for c in status.get("containerStatuses", [])),
            finished=datetime.fromisoformat(ended).timestamp() if ended and phase in ("Failed", "Succeeded") else None,
        )


@dataclass(frozen=True, kw_only=True)
class WorkloadPlan:
    """The next changes: pods to create, names of pods to delete, and the new status of the workload.

    With `retry_after`, the workload is to be planned again after so many seconds even if nothing has changed.
    """

    create: list[Resource] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    status: Resource = field(default_factory=dict)
    retry_after: float | None = None


def template_hash(workload: Resource) -> str:
    """A hash of a workload's pod template, which names its revision."""
    template = workload["spec"]["template"]
    return hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]


def new_pod(workload: Resource, metadata: dict[str, Any], *, labels: Mapping[str, str], **spec: str) -> Resource:
    """A pod from the workload's template. `metadata` has its name; `labels` and `spec` are added to the template's."""
    template = workload["spec"]["template"]
    template_metadata = template.get("metadata", {})
    owner = workload["metadata"]
    reference = {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "name": owner["name"],
        "uid": owner["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **metadata,
            "namespace": owner["namespace"],
            "labels": {**template_metadata.get("labels", {}), **labels},
            "annotations": template_metadata.get("annotations", {}),
            "ownerReferences": [reference],
        },
        "spec": {**template["spec"], **spec},
    }


def expendable_first(pods: Iterable[PodView]) -> list[PodView]:
    """Pods in the order in which to delete them: those that are not ready first, then the youngest."""
    return sorted(sorted(pods, key=lambda pod: (pod.created, pod.name), reverse=True), key=lambda pod: pod.ready)


def replica_status(workload: Resource, live: list[PodView]) -> Resource:
    """The status fields that every replicated workload has."""
    ready = sum(pod.ready for pod in live)
    return {
        "observedGeneration": workload["metadata"]["generation"],
        "replicas": len(live),
        "readyReplicas": ready,
        "availableReplicas": ready,
    }
