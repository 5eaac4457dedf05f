"""Metrics, health and readiness of the processes of the control plane."""

from .endpoints import Endpoints, Part, listen

__all__ = ["Endpoints", "Part", "listen"]
