"""Whether a traffic policy may be stored. Pure: the local API server and the Kubernetes webhook call the same."""

from __future__ import annotations

from .review import POLICIES, OtherObjects, Review, review, review_resource
from .stored import StoredObjects

__all__ = ["POLICIES", "OtherObjects", "Review", "StoredObjects", "review", "review_resource"]
