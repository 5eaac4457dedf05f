"""The `status` of a traffic policy: whether it is in force, on how many sidecars, and since which version."""

from __future__ import annotations

from typing import Any

from nginx_mesh.compile.reach import Force

IN_FORCE = "InForce"
"""The type of the condition."""

_MOST_PODS = 10
_TIME = "lastTransitionTime"
Status = dict[str, Any]


def policy_status(force: Force, *, sidecars: int, updated: int, generation: int, before: Status, now: str) -> Status:
    """What to write, given that `updated` of the `sidecars` that it concerns have the policy as it is.

    `before` is the status that it has; `now` is RFC 3339.
    """
    pods = sorted(f"{pod.namespace}/{pod.name}" for pod in force.pods or ())
    met, reason, message = _verdict(force, sidecars, updated)
    condition = {"type": IN_FORCE, "status": met, "reason": reason, "message": message, _TIME: now}
    for known in before.get("conditions", []):
        if known.get("type") == IN_FORCE and known.get("status") == met:
            condition[_TIME] = known.get(_TIME, now)
    status: Status = {
        "observedGeneration": generation,
        "stateVersion": force.version,
        "sidecars": sidecars,
        "updatedSidecars": updated,
        "conditions": [condition],
    }
    if pods:
        status["pods"] = pods[:_MOST_PODS] + (["…"] if len(pods) > _MOST_PODS else [])
    if force.problems:
        status["problems"] = list(force.problems)
    return status


def condition(status: Status) -> tuple[str, str]:
    """Status and reason of the condition that a status has; empty when it has none."""
    found: Status = next((each for each in status.get("conditions", []) if each.get("type") == IN_FORCE), {})
    return str(found.get("status", "")), str(found.get("reason", ""))


def _verdict(force: Force, sidecars: int, updated: int) -> tuple[str, str, str]:
    if sidecars == 0:
        return "False", "NoSidecars", "no pod with a sidecar is concerned"
    if not force.active:
        return "False", "WithoutEffect", force.problems[0] if force.problems else "it applies to no caller"
    if updated < sidecars:
        return "False", "Pending", f"{updated} of {sidecars} sidecars have it"
    if force.problems:
        return "True", "InPart", force.problems[0]
    return "True", "Acknowledged", "all sidecars that it concerns have it"
