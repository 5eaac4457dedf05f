"""Blocking calls of libraries, which run in threads and are limited in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from nginx_mesh.api.errors import one_line

from .base import UpstreamError

T = TypeVar("T")

CONNECT_SECONDS = 3.0
READ_SECONDS = 5.0
"""How long a client waits for a connection, and then for each part of an answer. Libraries take these per request."""

NO_ANSWER = f"no answer within {CONNECT_SECONDS:g} s (connecting) or {READ_SECONDS:g} s (reading)"

TOTAL_SECONDS = 15.0
REMEMBERED_SECONDS = 300.0


class BlockingCalls:
    """Runs one call at a time, each in a thread of its own, and waits for it for `seconds` at most.

    A thread cannot be stopped. A call that takes longer (a server that sends a byte at a time outlives the timeouts of
    libraries) is left to end by itself. Until it does, further calls fail. It does not keep the process from ending.
    """

    def __init__(self, name: str, seconds: float = TOTAL_SECONDS) -> None:
        self._name = name
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._running: Future[Any] | None = None

    async def run(self, what: str, function: Callable[[], T]) -> T:
        """What `function` returns. Every error becomes an UpstreamError that says who was asked for `what`.

        Errors of other types are reported by their type alone, because the messages of libraries may quote secrets.
        """
        try:
            async with asyncio.timeout(self._seconds), self._lock:
                if self._running is not None and not self._running.done():
                    raise UpstreamError("an earlier request still has no end")
                return await asyncio.wrap_future(self._start(function))
        except UpstreamError as error:
            raise UpstreamError(f"{self._name}: {what}: {error}") from None
        except TimeoutError:
            raise UpstreamError(f"{self._name}: {what}: no answer within {self._seconds:g} s") from None
        except Exception as error:
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            raise UpstreamError(f"{self._name}: {what}: failed unexpectedly ({kind})") from None

    def _start(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            try:
                result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        future.set_running_or_notify_cancel()  # so that a caller that gives up does not cancel it
        self._running = future
        threading.Thread(target=work, name=self._name, daemon=True).start()
        return future


class Remembered(Generic[T]):
    """An answer of a distant upstream, which is used again for `seconds`. Errors are not remembered."""

    def __init__(self, seconds: float = REMEMBERED_SECONDS) -> None:
        self._seconds = seconds
        self._known: tuple[float, T] | None = None

    async def get(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer that is remembered, or a new one."""
        if self._known is not None and time.monotonic() - self._known[0] < self._seconds:
            return self._known[1]
        answer = await ask()
        self._known = (time.monotonic(), answer)
        return answer


def quoted(text: str, secrets: Iterable[str | None]) -> str:
    """What an upstream or a library said, for a message: in one line, without the secrets."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "<secret>")
    return one_line(" ".join(text.split()))


def innermost(error: BaseException) -> str:
    """The text of the innermost of nested errors, such as "Connection refused"."""
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__ or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            return str(error)
        error = inner
