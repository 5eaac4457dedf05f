"""A value that changes, and tasks that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds the newest value. Those who follow may miss values in between, never the newest."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._changed = asyncio.Event()

    @property
    def value(self) -> T:
        """The newest value."""
        return self._value

    def set(self, value: T) -> None:
        """Replace the value. An equal one is no change."""
        if value != self._value:
            self._value = value
            self._changed.set()
            self._changed = asyncio.Event()

    async def values(self) -> AsyncGenerator[T, None]:
        """The present value, then the newest after each change."""
        while True:
            changed, value = self._changed, self._value
            yield value
            if changed is self._changed:
                await changed.wait()
