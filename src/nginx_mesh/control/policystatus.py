"""The `status` of a traffic policy: whether it is in force, on how many sidecars, and since which version."""

from __future__ import annotations

from typing import Any, NamedTuple

from nginx_mesh.api.conditions import IN_FORCE, find_condition
from nginx_mesh.compile.reach import Reach

_MOST_PODS = 10
_TIME = "lastTransitionTime"
Status = dict[str, Any]


class PolicyStanding(NamedTuple):
    """How far a policy is in force: `updated` of the `sidecars` that it concerns have it as it is."""

    reach: Reach
    sidecars: int
    updated: int


def policy_status(standing: PolicyStanding, *, generation: int, before: Status, now: str) -> Status:
    """The status to write for a policy of this standing and generation.

    `before` is the status that it has; `now` is RFC 3339.
    """
    reach, sidecars, updated = standing
    pods = sorted(f"{pod.namespace}/{pod.name}" for pod in reach.pods or ())
    met, reason, message = _verdict(reach, sidecars, updated)
    condition = {"type": IN_FORCE, "status": met, "reason": reason, "message": message, _TIME: now}
    known = find_condition(before, IN_FORCE)
    if known.get("status") == met:
        condition[_TIME] = known.get(_TIME, now)
    status: Status = {
        "observedGeneration": generation,
        "stateVersion": reach.version,
        "sidecars": sidecars,
        "updatedSidecars": updated,
        "conditions": [condition],
    }
    if pods:
        status["pods"] = pods[:_MOST_PODS] + (["…"] if len(pods) > _MOST_PODS else [])
    if reach.problems:
        status["problems"] = list(reach.problems)
    return status


def condition(status: Status) -> tuple[str, str]:
    """The status and the reason of a policy's InForce condition, both "" when it has none."""
    found = find_condition(status, IN_FORCE)
    return str(found.get("status", "")), str(found.get("reason", ""))


def _verdict(reach: Reach, sidecars: int, updated: int) -> tuple[str, str, str]:
    if sidecars == 0:
        return "False", "NoSidecars", "no pod with a sidecar is concerned"
    if not reach.active:
        return "False", "WithoutEffect", reach.problems[0] if reach.problems else "it applies to no caller"
    if updated < sidecars:
        return "False", "Pending", f"{updated} of {sidecars} sidecars have it"
    if reach.problems:
        return "True", "InPart", reach.problems[0]
    return "True", "Acknowledged", "all sidecars that it concerns have it"
