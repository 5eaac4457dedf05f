"""What the HTTP servers of the control plane share: endpoints for metrics, health and readiness, and JSON responses."""

from .endpoints import Endpoints, Part, listen

__all__ = ["Endpoints", "Part", "listen"]
