"""A value that changes, for whoever wants to know the newest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds a value. One that comes and goes while nobody looks is not seen by anybody."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._changed = asyncio.Event()

    @property
    def value(self) -> T:
        """The newest."""
        return self._value

    def set(self, value: T) -> None:
        """Replace it; nothing happens when it is the same."""
        if value != self._value:
            self._value = value
            self._changed.set()
            self._changed = asyncio.Event()

    async def values(self) -> AsyncGenerator[T, None]:
        """The value now, then the newest after each change."""
        while True:
            changed, value = self._changed, self._value
            yield value
            if changed is self._changed:
                await changed.wait()
