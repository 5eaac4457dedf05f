"""The containers of a pod, as requests name them."""

from __future__ import annotations

from nginx_mesh.api.resource import Resource
from nginx_mesh.api.status import StatusError


def check_container(pod: Resource, name: str, *, init: bool) -> None:
    """Raise StatusError unless the pod has a container of this name. With `init`, init containers count too."""
    spec = pod["spec"]
    containers = [*(spec.get("initContainers", []) if init else []), *spec["containers"]]
    if name not in [container["name"] for container in containers]:
        raise StatusError("BadRequest", f"container {name} is not valid for pod {pod['metadata']['name']}")
