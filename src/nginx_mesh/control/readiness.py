"""Which pods and workloads are not ready, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from nginx_mesh.api.conditions import find_condition, is_ready
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import ObjectReader, Resource, key_of
from nginx_mesh.api.workloadkinds import WORKLOADS

# Waiting does not help with these: a person must change the object.
_HOPELESS = {"CreateContainerConfigError", "CreateContainerError", "ImageNotRunnable"}

LatestWarning = Callable[[ObjectKey], str]


class Unready(NamedTuple):
    """An object that is not ready, and why.

    `container` is one whose log may tell more. `hopeless` means that waiting does not help.
    """

    key: ObjectKey
    reason: str
    container: str = ""
    hopeless: bool = False


def rolled_out(workload: Resource) -> bool:
    """Whether every pod the workload wants is there, made from its present template, and ready."""
    spec, status = workload["spec"], workload.get("status", {})
    if status.get("observedGeneration") != workload["metadata"]["generation"]:
        return False
    if workload["kind"] == "DaemonSet":
        return bool(status["updatedNumberScheduled"] == status["numberReady"] == 1)
    wanted = spec.get("replicas", 1)
    updated = status.get("updatedReplicas", status["replicas"])
    return bool(status["replicas"] == updated == status["readyReplicas"] == wanted)


def unready(resources: Iterable[Resource], latest_warning: LatestWarning) -> list[Unready]:
    """Those of these pods and workloads that are not ready. Pods that are being deleted do not count."""
    found: list[Unready] = []
    waiting_owners = set()
    for resource in sorted(resources, key=lambda resource: resource["kind"] != "Pod"):
        key = key_of(resource)
        if resource["kind"] == "Pod":
            if (reason := _pod_reason(resource, latest_warning)) is not None:
                found.append(reason)
                waiting_owners |= {owner["uid"] for owner in resource["metadata"].get("ownerReferences", [])}
        elif resource["kind"] == "Job":
            failed = find_condition(resource.get("status", {}), "Failed")
            if failed:
                found.append(Unready(key, f"{failed['reason']}: {failed['message']}", hopeless=True))
        elif not rolled_out(resource) and resource["metadata"]["uid"] not in waiting_owners:
            status = resource.get("status", {})
            ready = status.get("readyReplicas", status.get("numberReady", 0))
            warning = latest_warning(key)
            found.append(Unready(key, f"{ready} of its pods are ready" + (f"; {warning}" if warning else "")))
    return found


def _pod_reason(pod: Resource, latest_warning: LatestWarning) -> Unready | None:
    key, metadata, status = key_of(pod), pod["metadata"], pod.get("status", {})
    phase = status.get("phase", "Pending")
    if "deletionTimestamp" in metadata or phase == "Succeeded" or is_ready(pod):
        return None
    owner = next(iter(metadata.get("ownerReferences", [])), None)
    if phase == "Failed" and owner is not None and owner["kind"] == "Job":
        return None  # the Job tries again, and tells when it gives up
    warning = latest_warning(key)
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        name, state = container["name"], container["state"]
        terminated = state.get("terminated")
        if container["ready"] or (terminated and terminated["exitCode"] == 0):
            continue
        why = terminated or state.get("waiting", {})
        reason = why.get("reason", "")
        details = [part for part in (reason, why.get("message", "")) if part]
        if terminated:
            details.append(f"exit code {terminated['exitCode']}")
        if "running" in state:
            details = ["running, but not ready", *_probe_failure(name, warning)]
        hopeless = phase == "Failed" or reason in _HOPELESS
        if details:
            return Unready(key, f"container {name}: {': '.join(details)}", name, hopeless)
    reasons = [part for part in (status.get("reason", ""), status.get("message", ""), warning) if part]
    return Unready(key, ": ".join(reasons) or f"its phase is {phase}", hopeless=phase == "Failed")


def _probe_failure(container: str, warning: str) -> list[str]:
    """What a warning says of a probe of the container, if it is about one."""
    about, _, message = warning.partition(": ")
    return [message] if about == f"container {container}" and " probe failed: " in message else []


def readiness(
    objects: ObjectReader, latest_warning: LatestWarning, only: AbstractSet[ObjectKey] | None = None
) -> Resource:
    """How many pods there are and are ready, and what is not ready and why; with `only`, of these workloads."""
    resources = [item for kind in WORKLOADS for item in objects.list(kind)]
    if only is not None:
        owners = {item["metadata"]["uid"] for item in resources if key_of(item) in only}
        resources = [
            item
            for item in resources
            if key_of(item) in only or owners & {owner["uid"] for owner in item["metadata"].get("ownerReferences", [])}
        ]
    waiting = unready(resources, latest_warning)
    pods = [item for item in resources if item["kind"] == "Pod" and "deletionTimestamp" not in item["metadata"]]
    unready_pods = sum(entry.key.kind == "Pod" for entry in waiting)
    return {
        "pods": len(pods),
        "ready": len(pods) - unready_pods,
        "waiting": [
            {
                "object": f"{entry.key.kind.lower()}/{entry.key.name}",
                "namespace": entry.key.namespace,
                "reason": entry.reason,
                "container": entry.container,
                "hopeless": entry.hopeless,
            }
            for entry in waiting
        ],
    }
