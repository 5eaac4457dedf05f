"""Messages about what a policy refers to and what does not exist.

Admission finds such a reference when the policy is stored, compilation each time the catalog changes. Both use the same
text, so that one mistake makes one event.
"""

from __future__ import annotations

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.services import Service


def no_such_object(key: ObjectKey) -> str:
    """There is no such object. A Service that is not in the mesh counts as missing."""
    return f"there is no {key}" + (" in the mesh" if key.kind == Service.KIND else "")


def no_such_match(group: str, name: str) -> str:
    """The HTTPRouteGroup has no match of this name."""
    return f'HTTPRouteGroup {group} has no match "{name}"'


def no_such_port(service: ObjectKey, port: int) -> str:
    """The Service has no such port."""
    return f"{service} has no TCP port {port}"


def fallback_unusable(reason: str) -> str:
    """The reason why requests cannot go to a circuit breaker's fallback, and the consequence."""
    return f"{reason}: callers are refused while the circuit is open"
