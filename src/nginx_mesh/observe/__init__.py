"""How the processes of the control plane are watched: metrics, health and readiness."""

from .endpoints import Endpoints, Part, listen

__all__ = ["Endpoints", "Part", "listen"]
