"""Gives reviews access to the stored objects."""

from __future__ import annotations

from nginx_mesh.api import kinds
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import RateLimit
from nginx_mesh.api.resource import ObjectReader
from nginx_mesh.catalog.multimap import MultiMap
from nginx_mesh.catalog.policies import limited_destination


class StoredObjects:
    """The objects that a reader has at this time. After a change a new instance is needed."""

    def __init__(self, objects: ObjectReader) -> None:
        self._objects = objects
        self._limits: dict[ObjectKey, RateLimit] | None = None
        self._limits_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    def get(self, key: ObjectKey) -> Object | None:
        """The object of this key."""
        resource = self._objects.get(key)
        return None if resource is None else kinds.decode(resource)

    def limits_of(self, destination: ObjectKey) -> list[RateLimit]:
        """The RateLimits with this destination."""
        if self._limits is None:
            decoded = [kinds.decode(resource) for resource in self._objects.list(RateLimit.KIND)]
            self._limits = {limit.key: limit for limit in decoded if isinstance(limit, RateLimit)}
            for key, limit in self._limits.items():
                self._limits_of.add(limited_destination(limit), key)
        return [self._limits[key] for key in self._limits_of.get(destination)]
