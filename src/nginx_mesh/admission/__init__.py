"""Whether a traffic policy may be stored. Pure: the local API server and the Kubernetes webhook call the same."""

from __future__ import annotations

from .review import POLICIES, Review, View, review

__all__ = ["POLICIES", "Review", "View", "review"]
