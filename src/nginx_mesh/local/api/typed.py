"""Objects of the store, decoded."""

from __future__ import annotations

import msgspec

from nginx_mesh.api import kinds
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.resource import ObjectReader, Resource


def find_object(objects: ObjectReader, key: ObjectKey) -> Object | None:
    """The object, or None."""
    resource = objects.get(key)
    return None if resource is None else kinds.decode(resource)


def decode_pod(resource: Resource) -> Pod:
    """A pod of the store."""
    return msgspec.convert(resource, Pod)


def list_pods(objects: ObjectReader, namespace: str | None = None) -> list[Pod]:
    """The pods of one namespace, or of all."""
    return [decode_pod(resource) for resource in objects.list("Pod", namespace)]
