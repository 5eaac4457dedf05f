"""How it is said that something a policy names is not there: alike when it is stored and when it is compiled."""

from __future__ import annotations

from nginx_mesh.api.core import Service
from nginx_mesh.api.meta import ObjectKey


def absent(key: ObjectKey) -> str:
    """There is no such object. A Service that is outside of the mesh counts as none."""
    return f"there is no {key}" + (" in the mesh" if key.kind == Service.KIND else "")


def without_match(group: str, name: str) -> str:
    """The HTTPRouteGroup has no match of this name."""
    return f'HTTPRouteGroup {group} has no match "{name}"'


def without_port(service: ObjectKey, port: int) -> str:
    """The Service has no such port."""
    return f"{service} has no TCP port {port}"


def no_fallback(reason: str) -> str:
    """The reason why nobody can be sent to a circuit breaker's fallback, and what comes of that."""
    return f"{reason}: callers are refused while the circuit is open"
