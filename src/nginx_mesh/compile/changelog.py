"""The keys that changed since a version."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class ChangeLog(Generic[K]):
    """The last version that changed each key, the latest changes last.

    It holds at most `capacity` keys and forgets the oldest changes first. It answers only for versions since which it
    has forgotten nothing, at first for `version` and later ones. A question costs in proportion to its answer.
    """

    __slots__ = ("_capacity", "_changed", "_since")

    def __init__(self, version: int, capacity: int) -> None:
        self._changed: OrderedDict[K, int] = OrderedDict()
        self._since = version
        self._capacity = capacity

    def record(self, key: K, version: int) -> None:
        """Note that `key` changed in `version`, which must not be lower than any before."""
        self._changed[key] = version
        self._changed.move_to_end(key)
        if len(self._changed) > self._capacity:
            _, self._since = self._changed.popitem(last=False)

    def since(self, version: int) -> list[K] | None:
        """The keys that changed after `version`; None when changes after it may have been forgotten."""
        if version < self._since:
            return None
        keys: list[K] = []
        for key, changed in reversed(self._changed.items()):
            if changed <= version:
                break
            keys.append(key)
        return keys
