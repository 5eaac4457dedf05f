"""A mapping from a key to a set of values that holds no empty sets."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)


class MultiMap(Generic[K, V]):
    """Sets by key. `get` returns a live view: copy it before changing the map."""

    __slots__ = ("_sets",)

    def __init__(self) -> None:
        self._sets: dict[K, set[V]] = {}

    def add(self, key: K, value: V) -> None:
        """Put `value` among those of `key`."""
        self._sets.setdefault(key, set()).add(value)

    def discard(self, key: K, value: V) -> None:
        """Take `value` from those of `key`; nothing happens when it is not there."""
        values = self._sets.get(key)
        if values is not None:
            values.discard(value)
            if not values:
                del self._sets[key]

    def get(self, key: K) -> AbstractSet[V]:
        """The values of `key`, empty when it has none."""
        return self._sets.get(key, frozenset())

    def __iter__(self) -> Iterator[K]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)
