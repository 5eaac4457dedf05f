"""Conditions in the status of objects (metav1.Condition)."""

from __future__ import annotations

from typing import Final

from .resource import Resource

IN_FORCE: Final = "InForce"
"""The condition of a traffic policy: whether the sidecars that it concerns apply it."""


def find_condition(status: Resource, type_: str) -> Resource:
    """The condition of this type in an object's `status`, empty when there is none."""
    conditions: list[Resource] = status.get("conditions", [])
    return next((condition for condition in conditions if condition.get("type") == type_), {})


def is_ready(pod: Resource) -> bool:
    """Whether a pod's Ready condition is True."""
    condition = find_condition(pod.get("status", {}), "Ready")
    return condition.get("status") == "True"
