"""Statuses of pods in the shape that an earlier version of the mesh stored.

The state of a container was a string, with reason, message and exit code beside it:
`{"name": "app", "state": "waiting", "reason": "CrashLoopBackOff", "exitCode": 1}`. Without a `state`, the container was
waiting. Pods outlive the daemon that stored them, so a daemon may find such statuses in its store.
"""

from __future__ import annotations

from nginx_mesh.api.resource import Resource

_FIELDS = ("initContainerStatuses", "containerStatuses")


def with_current_status(resource: Resource) -> Resource:
    """A stored object, with its status in the shape of Kubernetes."""
    if resource["kind"] != "Pod" or "status" not in resource:
        return resource
    status = resource["status"]
    current = {field: [_current(entry) for entry in status[field]] for field in _FIELDS if field in status}
    return {**resource, "status": {**status, **current}}


def _current(old: Resource) -> Resource:
    if isinstance(old.get("state"), dict):
        return old
    state = old.get("state", "waiting")
    cause = {name: old[name] for name in ("reason", "message") if name in old}
    states: Resource = {
        "waiting": cause,
        "running": {},
        "terminated": {"exitCode": old.get("exitCode", 0), **cause},
    }
    return {
        "name": old["name"],
        "ready": old.get("ready", False),
        "restartCount": old.get("restartCount", 0),
        "state": {state: states[state]},
        "lastState": {"terminated": {"exitCode": old["exitCode"]}} if state == "waiting" and "exitCode" in old else {},
    }
