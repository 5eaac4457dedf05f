"""Objects as plain dictionaries, in the shape that the Kubernetes API gives them."""

from __future__ import annotations

from typing import Any, Protocol

from .meta import ObjectKey

Resource = dict[str, Any]
"""An object as JSON has it. Whoever was given one by a store or a cache copies it before changing anything."""


class ObjectReader(Protocol):
    """Reads the objects of a mesh, as they are stored."""

    def get(self, key: ObjectKey) -> Resource | None:
        """The object of this key, None when there is none."""

    def list(self, kind: str | None = None, namespace: str | None = None) -> list[Resource]:
        """Objects of one kind or of all, of one namespace or of all, sorted by kind, namespace and name."""


def key_of(resource: Resource) -> ObjectKey:
    """The identity of an object. Raises KeyError when it has no kind or no name."""
    metadata = resource["metadata"]
    return ObjectKey(resource["kind"], metadata.get("namespace", ""), metadata["name"])


def namespace_labels(objects: ObjectReader, name: str) -> dict[str, str]:
    """The labels of a namespace; none when there is no such namespace."""
    namespace = objects.get(ObjectKey("Namespace", "", name)) or {"metadata": {}}
    labels: dict[str, str] = namespace["metadata"].get("labels", {})
    return labels
