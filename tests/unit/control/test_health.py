"""What makes a mesh unwell, and what is only worth a look."""

from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.times import rfc3339
from nginx_mesh.control.health import findings, policy_facts, sidecar_facts, sidecar_state, sidecars_facts
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.protocol.standing import SidecarReport, SidecarStanding

NOW = 1_700_000_000.0
POD = ObjectKey("Pod", "shop", "web-0")
HELD = SvidStatus("spiffe://example.org/ns/shop/sa/web", (), "1f", "ca", NOW - 600, NOW + 3000, NOW + 1200)
SYNCED = SidecarStanding("synced", 7)


def facts(
    standing: SidecarStanding | None = SYNCED,
    held: SvidStatus | None = HELD,
    *,
    live: bool = True,
    age: float = 300,
    **more: Any,
) -> dict[str, Any]:
    """A mesh of one sidecar."""
    sidecar = sidecar_facts(SidecarReport(POD, "u", live, standing), held, age)
    return {
        "daemon": {"unready": {}},
        "identity": {"delayed": ""},
        "pods": {"waiting": []},
        "sidecars": sidecars_facts([sidecar], 9),
        "policies": policy_facts([]),
        **more,
    }


def judged(found: dict[str, Any], events: list[Any] | None = None) -> tuple[list[str], list[str]]:
    problems, warnings = findings(found, events or [], NOW)
    return [f"{each.about}: {each.message}" for each in problems], [
        f"{each.about}: {each.message}" for each in warnings
    ]


def test_a_mesh_that_does_what_it_should_is_well() -> None:
    assert judged(facts()) == ([], [])


@pytest.mark.parametrize(
    ("standing", "live", "age", "problem"),
    [
        (
            SidecarStanding("refused", 7, "it refused settings: bad", 0.1),
            True,
            300,
            "older state: it refused settings: bad",
        ),
        (
            SidecarStanding("refused", None, "it refused settings: bad", 0.1),
            False,
            5,
            "older state: it refused settings",
        ),
        (SidecarStanding("unreachable", None, "no such file", 1.0), True, 300, ""),
        (
            SidecarStanding("unreachable", None, "no such file", 5.0),
            True,
            300,
            "cannot be reached for 5 s: no such file",
        ),
        (SidecarStanding("pending", 6, behind=1.0), True, 300, ""),
        (SidecarStanding("pending", 6, behind=30.0), True, 300, "has not taken its newest state for 30 s"),
        (SidecarStanding("unreachable", None, "no such file", 30.0), False, 30, ""),
        (
            SidecarStanding("unreachable", None, "no such file", 90.0),
            False,
            90,
            "has no state 90 s after its pod began: no such file",
        ),
    ],
)
def test_a_sidecar_is_a_problem_when_it_is_behind_for_longer_than_it_takes(
    standing: SidecarStanding, live: bool, age: float, problem: str
) -> None:
    problems, _ = judged(facts(standing, live=live, age=age))
    assert problems == [] if not problem else problem in problems[0]


def test_a_pod_without_an_identity_is_a_problem_after_a_minute() -> None:
    problems, _ = judged(facts(None, SvidStatus("spiffe://x", ()), live=False, age=10))
    assert problems == []
    problems, _ = judged(facts(None, SvidStatus("spiffe://x", (), problem="csr: too long"), live=False, age=100))
    assert problems == ["sidecar of shop/web-0: has no identity 100 s after its pod began: csr: too long"]


def test_a_certificate_that_expired_is_a_problem_and_a_late_renewal_a_warning() -> None:
    late = SvidStatus("spiffe://x", (), "1f", "ca", NOW - 4000, NOW + 1000, NOW - 300)
    problems, warnings = judged(facts(held=late))
    assert (problems, warnings) == ([], ["sidecar of shop/web-0: its certificate should have been renewed 300 s ago"])
    problems, _ = judged(facts(held=SvidStatus("spiffe://x", (), "1f", "ca", NOW - 4000, NOW - 10, NOW - 300)))
    assert problems == ["sidecar of shop/web-0: its certificate expired 10 s ago"]


def test_parts_of_the_daemon_that_are_not_ready_are_problems() -> None:
    problems, _ = judged(facts(daemon={"unready": {"store": "cannot write store.db: disk full"}}))
    assert problems == ["daemon: store: cannot write store.db: disk full"]


def policy(status: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "RateLimit", "metadata": {"namespace": "shop", "name": "ten"}, "status": status}


def test_policies_that_are_not_in_force_are_warnings_with_the_reason() -> None:
    condition = {"type": "InForce", "status": "False", "reason": "NoSidecars", "message": "no pod is concerned"}
    found = policy_facts(
        [policy({"conditions": [condition]}), policy({}), policy({"conditions": [{**condition, "status": "True"}]})]
    )
    assert (found["total"], found["in_force"]) == (3, 1)
    problems, warnings = judged(facts(policies=found))
    assert problems == []
    assert warnings == [
        "ratelimit/ten in namespace shop: is not in force: no pod is concerned",
        "ratelimit/ten in namespace shop: is not in force: its status is not known yet",
    ]


def event(about: str, reason: str = "Failed", *, ago: float = 60, kind: str = "Warning") -> dict[str, Any]:
    return {
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": about},
        "type": kind,
        "reason": reason,
        "message": "it did",
        "lastTimestamp": rfc3339(NOW - ago),
    }


def test_warnings_are_told_while_they_are_news_and_once_for_an_object() -> None:
    waiting = {"object": "pod/web-1", "namespace": "shop", "reason": "container web: CrashLoopBackOff"}
    events = [
        event("web-0"),
        event("web-1"),
        event("old", ago=3600),
        event("normal", kind="Normal"),
        event("recovered", "Unhealthy"),
    ]
    _, warnings = judged(facts(pods={"waiting": [waiting]}), events)
    assert warnings == [
        "pod/web-1 in namespace shop: container web: CrashLoopBackOff",
        "pod/web-0 in namespace shop: Failed: it did",
    ]


def test_a_sidecar_that_never_had_a_state_is_starting_unless_it_refused_it() -> None:
    assert sidecar_state(SidecarReport(POD, "u", False, None)) == "starting"
    assert sidecar_state(SidecarReport(POD, "u", False, SidecarStanding("unreachable", None, "x"))) == "starting"
    assert sidecar_state(SidecarReport(POD, "u", False, SidecarStanding("refused", None, "x"))) == "refused"
    assert sidecar_state(SidecarReport(POD, "u", True, SidecarStanding("pending", 3))) == "pending"
