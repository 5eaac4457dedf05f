"""What the status of a policy says."""

from __future__ import annotations

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.compile.reach import Reach
from nginx_mesh.control.policystatus import PolicyStanding, Status, condition, policy_status

PODS = frozenset(ObjectKey("Pod", "shop", f"web-{number}") for number in range(2))


def status(reach: Reach, updated: int, before: Status | None = None, now: str = "t1", sidecars: int = 2) -> Status:
    return policy_status(PolicyStanding(reach, sidecars, updated), generation=3, before=before or {}, now=now)


def test_a_policy_that_all_have_is_in_force() -> None:
    assert status(Reach(PODS, True, 7), 2) == {
        "observedGeneration": 3,
        "stateVersion": 7,
        "sidecars": 2,
        "updatedSidecars": 2,
        "pods": ["shop/web-0", "shop/web-1"],
        "conditions": [
            {
                "type": "InForce",
                "status": "True",
                "reason": "Acknowledged",
                "message": "all sidecars that it concerns have it",
                "lastTransitionTime": "t1",
            }
        ],
    }


@pytest.mark.parametrize(
    ("force", "sidecars", "updated", "expected", "message"),
    [
        (Reach(PODS, True, 7), 2, 1, ("False", "Pending"), "1 of 2 sidecars have it"),
        (Reach(frozenset(), False, 7), 0, 0, ("False", "NoSidecars"), "no pod with a sidecar is concerned"),
        (Reach(None, True, 7), 0, 0, ("False", "NoSidecars"), "no pod with a sidecar is concerned"),
        (Reach(PODS, False, 7, ("spec.x: bad",)), 2, 2, ("False", "WithoutEffect"), "spec.x: bad"),
        (Reach(PODS, False, 7), 2, 2, ("False", "WithoutEffect"), "it applies to no caller"),
        (Reach(PODS, True, 7, ("spec.x: bad",)), 2, 2, ("True", "InPart"), "spec.x: bad"),
    ],
)
def test_a_policy_that_is_not_says_why(
    force: Reach, sidecars: int, updated: int, expected: tuple[str, str], message: str
) -> None:
    found = status(force, updated, sidecars=sidecars)
    assert condition(found) == expected
    assert found["conditions"][0]["message"] == message
    assert found.get("problems", []) == list(force.problems)


def test_the_time_is_that_of_the_last_change_of_the_condition() -> None:
    first = status(Reach(PODS, True, 7), 1, now="t1")
    second = status(Reach(PODS, True, 7), 0, first, now="t2")
    third = status(Reach(PODS, True, 7), 2, second, now="t3")
    fourth = status(Reach(PODS, True, 8, ("spec.x: bad",)), 2, third, now="t4")
    times = [each["conditions"][0]["lastTransitionTime"] for each in (first, second, third, fourth)]
    assert times == ["t1", "t1", "t3", "t3"]


def test_only_a_few_pods_are_named_and_none_where_all_are_meant() -> None:
    many = frozenset(ObjectKey("Pod", "shop", f"web-{number:02}") for number in range(30))
    assert status(Reach(many, True, 7), 30, sidecars=30)["pods"] == [*(f"shop/web-{n:02}" for n in range(10)), "…"]
    assert "pods" not in status(Reach(None, True, 7), 30, sidecars=30)
