"""The objects of a local mesh as admission looks at them."""

from __future__ import annotations

from nginx_mesh.api import kinds
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.nsm import RateLimit
from nginx_mesh.catalog.multimap import MultiMap
from nginx_mesh.catalog.policies import limited_destination
from nginx_mesh.local.api.store import Transaction


class Others:
    """What there is when a transaction ends as it is now: to be made anew after it has changed more."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._limits: dict[ObjectKey, RateLimit] | None = None
        self._limits_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    def get(self, key: ObjectKey) -> Object | None:
        """The object of this key."""
        resource = self._tx.get(key)
        return None if resource is None else kinds.decode(resource)

    def limits_of(self, destination: ObjectKey) -> list[RateLimit]:
        """The RateLimits whose destination this is."""
        if self._limits is None:
            decoded = [kinds.decode(resource) for resource in self._tx.list(RateLimit.KIND)]
            self._limits = {limit.key: limit for limit in decoded if isinstance(limit, RateLimit)}
            for key, limit in self._limits.items():
                self._limits_of.add(limited_destination(limit), key)
        return [self._limits[key] for key in self._limits_of.get(destination)]
