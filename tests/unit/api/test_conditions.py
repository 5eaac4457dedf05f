"""Looking up conditions in the status of objects."""

from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.api.conditions import IN_FORCE, find_condition, is_ready


def test_a_condition_is_found_by_its_type() -> None:
    status = {
        "conditions": [{"status": "True"}, {"type": "Ready", "status": "False"}, {"type": IN_FORCE, "reason": "x"}]
    }
    assert find_condition(status, IN_FORCE) == {"type": IN_FORCE, "reason": "x"}
    assert find_condition(status, "Other") == find_condition({}, IN_FORCE) == {}


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, False),
        ({"conditions": [{"type": "ContainersReady", "status": "True"}]}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_pod_is_ready_when_its_ready_condition_is_true(status: Any, ready: bool) -> None:
    assert is_ready({} if status is None else {"status": status}) is ready
