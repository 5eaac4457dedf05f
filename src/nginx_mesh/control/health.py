"""The health of a mesh, for `nginx-meshctl status`: facts as a document, and the findings in them. Pure.

A finding is a problem when the mesh does not work as it should. It is a warning when a person should look at something:
policies without effect, pods of applications that are not ready, renewals that are late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from nginx_mesh.api.resource import Resource
from nginx_mesh.api.times import unix_seconds
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.protocol.standing import SidecarReport

from .policystatus import condition

Facts = dict[str, Any]

SIDECAR_STATES = ("synced", "pending", "refused", "unreachable", "starting")

# A state reaches a sidecar within milliseconds, and a pod starts within seconds. Taking longer than this is a problem.
_PENDING_SECONDS = 2.0
_STARTING_SECONDS = 60.0
# How many seconds after it was due a renewal counts as late.
_LATE_SECONDS = 60.0
# An event older than this many seconds is no longer reported.
_RECENT_SECONDS = 900.0


SvidStatusOf = Callable[[str], SvidStatus | None]
"""What is known of the SVID of the pod with a uid; None when it shall have none."""


class Finding(NamedTuple):
    """A problem or a warning, and the object or part of the mesh that it is about."""

    about: str
    message: str


def sidecar_state(sidecar: SidecarReport) -> str:
    """One of SIDECAR_STATES."""
    if sidecar.standing is not None and (sidecar.live or sidecar.standing.state == "refused"):
        return sidecar.standing.state
    return "starting"


def sidecar_facts(sidecar: SidecarReport, held: SvidStatus | None, age: float) -> Facts:
    """The facts about a sidecar and its certificate. `age` is the age of its pod in seconds."""
    standing = sidecar.standing
    why_none = "" if held is None else held.problem
    return {
        "namespace": sidecar.pod.namespace,
        "pod": sidecar.pod.name,
        "state": sidecar_state(sidecar),
        "version": None if standing is None else standing.version,
        "reason": why_none if standing is None else standing.reason,
        "behind_seconds": round(age if standing is None else standing.behind, 3),
        "spiffe_id": None if held is None else held.spiffe_id,
        "not_after": held.not_after if held is not None and held.serial else None,
        "renew_at": held.renew_at if held is not None and held.serial else None,
    }


def sidecars_facts(items: list[Facts], version: int) -> Facts:
    """The facts about all sidecars. `version` is that of the newest state of any sidecar."""
    states = Counter(item["state"] for item in items)
    return {
        "total": len(items),
        "states": {state: states[state] for state in SIDECAR_STATES},
        "state_version": version,
        "first_expiry": min((item["not_after"] for item in items if item["not_after"] is not None), default=None),
        "items": sorted(items, key=lambda item: (item["namespace"], item["pod"])),
    }


def policy_facts(policies: Iterable[Resource]) -> Facts:
    """How many policies there are and are in force, and which are not."""
    total, waiting = 0, []
    for policy in policies:
        total += 1
        met, reason = condition(policy.get("status", {}))
        if met != "True":
            said = policy.get("status", {}).get("conditions", [{}])
            waiting.append(
                {
                    "kind": policy["kind"],
                    "namespace": policy["metadata"]["namespace"],
                    "name": policy["metadata"]["name"],
                    "reason": reason or "Pending",
                    "message": said[0].get("message", "its status is not known yet"),
                }
            )
    return {"total": total, "in_force": total - len(waiting), "not_in_force": waiting}


def findings(facts: Mapping[str, Any], events: Iterable[Resource], now: float) -> tuple[list[Finding], list[Finding]]:
    """The problems and the warnings that the facts and the recent events show. `now` is seconds since the epoch."""
    problems = [Finding(f"daemon: {part}", reason) for part, reason in facts["daemon"]["unready"].items()]
    warnings: list[Finding] = []
    if facts["identity"]["delayed"]:
        warnings.append(Finding("identity", f"the next CA is delayed: {facts['identity']['delayed']}"))
    for item in facts["sidecars"]["items"]:
        _judge_sidecar(item, now, problems, warnings)
    for entry in facts["pods"]["waiting"]:
        warnings.append(Finding(f"{entry['object']} in namespace {entry['namespace']}", entry["reason"]))
    for policy in facts["policies"]["not_in_force"]:
        about = _about(policy["kind"], policy["namespace"], policy["name"])
        warnings.append(Finding(about, f"is not in force: {policy['message']}"))
    said = {finding.about for finding in (*problems, *warnings)}
    for event in events:
        involved = event["involvedObject"]
        about = _about(involved["kind"], involved["namespace"], involved["name"])
        recent = unix_seconds(event["lastTimestamp"]) > now - _RECENT_SECONDS
        # A container that is still unhealthy is reported with its pod.
        reported = event["type"] == "Warning" and event["reason"] != "Unhealthy" and recent
        if reported and about not in said:
            warnings.append(Finding(about, f"{event['reason']}: {event['message']}"))
    return problems, warnings


def _judge_sidecar(item: Facts, now: float, problems: list[Finding], warnings: list[Finding]) -> None:
    about = f"sidecar of {item['namespace']}/{item['pod']}"
    state, behind = item["state"], item["behind_seconds"]
    if state == "refused":
        problems.append(Finding(about, f"goes on with an older state: {item['reason']}"))
    elif state == "unreachable" and behind > _PENDING_SECONDS:
        problems.append(Finding(about, f"cannot be reached for {behind:.0f} s: {item['reason']}"))
    elif state == "pending" and behind > _PENDING_SECONDS:
        problems.append(Finding(about, f"has not taken its newest state for {behind:.0f} s"))
    elif state == "starting" and behind > _STARTING_SECONDS:
        missing = "no identity" if item["not_after"] is None else "no state"
        reason = f": {item['reason']}" if item["reason"] else ""
        problems.append(Finding(about, f"has {missing} {behind:.0f} s after its pod began{reason}"))
    if item["not_after"] is not None and item["not_after"] <= now:
        problems.append(Finding(about, f"its certificate expired {now - item['not_after']:.0f} s ago"))
    elif item["renew_at"] and item["renew_at"] < now - _LATE_SECONDS:
        warnings.append(Finding(about, f"its certificate should have been renewed {now - item['renew_at']:.0f} s ago"))


def _about(kind: str, namespace: str, name: str) -> str:
    return f"{kind.lower()}/{name}" + (f" in namespace {namespace}" if namespace else "")
