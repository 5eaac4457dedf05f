"""Statuses of pods in the shape in which the mesh stored them before it took over that of Kubernetes.

A container's state was a word, with reason, message and exit code beside it:
`{"name": "app", "state": "waiting", "reason": "CrashLoopBackOff", "exitCode": 1}`. A container that waited need not say
so. Pods outlive the daemon that stored them, so the next one has to understand what it finds.
"""

from __future__ import annotations

from nginx_mesh.api.resource import Resource

_FIELDS = ("initContainerStatuses", "containerStatuses")


def with_current_status(resource: Resource) -> Resource:
    """A stored object, its status in the shape of Kubernetes."""
    if resource["kind"] != "Pod" or "status" not in resource:
        return resource
    status = resource["status"]
    current = {field: [_current(entry) for entry in status[field]] for field in _FIELDS if field in status}
    return {**resource, "status": {**status, **current}}


def _current(old: Resource) -> Resource:
    if isinstance(old.get("state"), dict):
        return old
    word = old.get("state", "waiting")
    why = {name: old[name] for name in ("reason", "message") if name in old}
    states: Resource = {
        "waiting": why,
        "running": {},
        "terminated": {"exitCode": old.get("exitCode", 0), **why},
    }
    return {
        "name": old["name"],
        "ready": old.get("ready", False),
        "restartCount": old.get("restartCount", 0),
        "state": {word: states[word]},
        "lastState": {"terminated": {"exitCode": old["exitCode"]}} if word == "waiting" and "exitCode" in old else {},
    }
