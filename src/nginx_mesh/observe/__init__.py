"""What the HTTP servers of the control plane share: endpoints for metrics, health and readiness, and JSON responses."""

from nginx_mesh.observe.endpoints import MonitoringEndpoints

from .endpoints import Part, listen

__all__ = ["MonitoringEndpoints", "Part", "listen"]
