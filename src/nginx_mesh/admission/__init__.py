"""Decides whether an object may be stored, without I/O, for the local API server and Kubernetes webhooks."""

from __future__ import annotations

from .meshconfig import check_mesh_config
from .review import POLICY_KINDS, OtherObjects, Review, review, review_changes
from .stored import StoredObjects
from .templates import check_template

__all__ = [
    "POLICY_KINDS",
    "OtherObjects",
    "Review",
    "StoredObjects",
    "check_mesh_config",
    "check_template",
    "review",
    "review_changes",
]
