"""What changed since a version."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Journal(Generic[K]):
    """The last version that changed each key, most recent last.

    It remembers at most `capacity` keys and answers only for versions since when it has forgotten nothing, at first
    those from `version` on. Asking costs in proportion to the answer.
    """

    __slots__ = ("_capacity", "_changed", "_since")

    def __init__(self, version: int, capacity: int) -> None:
        self._changed: OrderedDict[K, int] = OrderedDict()
        self._since = version
        self._capacity = capacity

    def record(self, key: K, version: int) -> None:
        """`key` changed in `version`, which is no less than any before."""
        self._changed[key] = version
        self._changed.move_to_end(key)
        if len(self._changed) > self._capacity:
            _, self._since = self._changed.popitem(last=False)

    def since(self, version: int) -> list[K] | None:
        """The keys that changed after `version`, or None when that is too long ago to tell."""
        if version < self._since:
            return None
        keys: list[K] = []
        for key, changed in reversed(self._changed.items()):
            if changed <= version:
                break
            keys.append(key)
        return keys
