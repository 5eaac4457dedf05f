"""Waiting in tests for what happens soon, but not at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

What = str | Callable[[], str]
"""What is waited for, or a function that says it when it has not come in time."""

# Blocking tests wait for other processes, and often run a command for each look.
_POLL_SECONDS, _BLOCKING_POLL_SECONDS = 0.005, 0.02


async def eventually(condition: Callable[[], object], what: What, seconds: float = 10.0) -> None:
    """Wait on the event loop until a condition holds. Raises AssertionError when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, _message(what, seconds)
        await asyncio.sleep(_POLL_SECONDS)


def wait_until(condition: Callable[[], object], what: What, seconds: float = 10.0) -> None:
    """Like `eventually`, but blocks the calling thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, _message(what, seconds)
        time.sleep(_BLOCKING_POLL_SECONDS)


def _message(what: What, seconds: float) -> str:
    return f"not within {seconds:g} s: {what if isinstance(what, str) else what()}"
