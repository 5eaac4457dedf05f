"""Decides whether a traffic policy may be stored, without I/O, for the local API server and Kubernetes webhooks."""

from __future__ import annotations

from .review import POLICY_KINDS, OtherObjects, Review, review, review_resource
from .stored import StoredObjects

__all__ = ["POLICY_KINDS", "OtherObjects", "Review", "StoredObjects", "review", "review_resource"]
