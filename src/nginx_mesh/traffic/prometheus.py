"""Flows from a Prometheus that scrapes the sidecars."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Literal

import aiohttp
import msgspec
from prometheus_client import Counter, Histogram

from nginx_mesh.api.errors import one_line
from nginx_mesh.api.values import HostPort
from nginx_mesh.traffic.measure import TrafficQuery

from . import promql
from .flows import Flow
from .server import WINDOW, SourceError

log = logging.getLogger(__name__)

_SECONDS = 10.0
_MAX_ANSWER = 64 << 20

_queries = Counter("nginx_mesh_prometheus_queries", "Queries to Prometheus, by result.", ["result"])
_query_seconds = Histogram("nginx_mesh_prometheus_query_seconds", "Time that Prometheus took to answer, seconds.")
for _result in ("ok", "failed"):
    _queries.labels(_result)


class _Row(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Vector(msgspec.Struct, rename="camel"):
    result_type: Literal["vector"]
    result: list[_Row]


class _Answer(msgspec.Struct, rename="camel"):
    status: Literal["success", "error"]
    data: _Vector | None = None
    error: str = ""


class Prometheus:
    """A client of the Prometheus at `address`, whose responses are not trusted.

    Errors name it by `name`, or else by its address. `connector` makes the connector of its HTTP session, by default
    one for TCP. A response may take `seconds`.
    """

    def __init__(
        self,
        address: HostPort,
        *,
        name: str = "",
        connector: Callable[[], aiohttp.BaseConnector] | None = None,
        seconds: float = _SECONDS,
    ) -> None:
        self.address = address
        self._name = name or str(address)
        self._seconds = seconds
        self._connector = connector
        self._session: aiohttp.ClientSession | None = None

    async def flows(self, question: TrafficQuery) -> Sequence[Flow]:
        """The flows for a question; this is a traffic.server.Source. Raises SourceError."""
        if not promql.can_exist(question):
            return []
        began = time.monotonic()
        try:
            found = await self._ask(promql.query(question, WINDOW))
        except SourceError:
            _queries.labels("failed").inc()
            raise
        _queries.labels("ok").inc()
        _query_seconds.observe(time.monotonic() - began)
        return found

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, query: str) -> Sequence[Flow]:
        try:
            async with asyncio.timeout(self._seconds):
                status, content = await self._post({"query": query, "timeout": f"{self._seconds:g}s"})
        except TimeoutError:
            raise self._error(f"does not answer within {self._seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._error(f"does not answer: {_reason(error)}") from None
        try:
            return await asyncio.to_thread(_read, content)
        except _NoAnswerError as error:
            raise self._error(f"{error}{f' (HTTP {status})' if status != 200 else ''}") from None

    async def _post(self, form: dict[str, str]) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector() if self._connector is not None else None,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        url = f"http://{self.address}/api/v1/query"
        async with self._session.post(url, data=form, allow_redirects=False) as response:
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > _MAX_ANSWER:
                    raise self._error(f"answers more than {_MAX_ANSWER >> 20} MiB")
            return response.status, bytes(content)

    def _error(self, reason: str) -> SourceError:
        return SourceError(f"Prometheus at {self._name} {reason}")


class _NoAnswerError(Exception):
    pass


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0
        return os.strerror(number) if number > 0 else one_line(str(error.os_error.strerror))
    return one_line(str(error)) or type(error).__name__


def _read(content: bytes) -> Sequence[Flow]:
    try:
        answer = msgspec.json.decode(content, type=_Answer)
        if answer.status == "error" or answer.data is None:
            raise _NoAnswerError(f"refuses the query: {one_line(answer.error)}")
        found = promql.read((row.metric, float(row.value[1])) for row in answer.data.result)
    except (ValueError, RecursionError) as error:  # msgspec and UTF-8 decoding raise ValueErrors
        raise _NoAnswerError(f"answers what is no result of a query: {one_line(str(error))}") from None
    if found is None:
        raise _NoAnswerError("has metrics of no sidecar: does it scrape them?")
    return found
