"""A client of a sidecar's control socket, which speaks HTTP/1.1 over a unix socket (see docs/architecture.md)."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from nginx_mesh.protocol.control import Accepted, Conflict, Refused, SidecarUnreachableError, Tap
from nginx_mesh.protocol.state import Update

_STATE = "http://sidecar/v1/state"
_METRICS = "http://sidecar/v1/metrics"
_TAP = "http://sidecar/v1/tap"
_LONGEST_REASON = 1000
_PEM = re.compile(r"-----BEGIN.*?(?:-----END[^-]*-----|\Z)", re.DOTALL)


class ControlSocket:
    """A client of one sidecar, with one connection that is kept alive. An async context manager.

    `timeout` is the seconds that a request may take. Methods raise SidecarUnreachableError.
    """

    def __init__(self, path: Path, *, timeout: float = 10.0) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(path), limit=1, keepalive_timeout=3600),
            timeout=aiohttp.ClientTimeout(total=timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> ControlSocket:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def put(self, update: Update) -> Accepted | Conflict | Refused:
        """Give the sidecar an update."""
        status, answer = await self._request("PUT", msgspec.json.encode(update))
        if status == 200 and answer.get("version") == update.version:
            return Accepted(update.version)
        if status == 409:
            return Conflict()
        if status == 400:
            return Refused(key=_text(answer.get("key")), reason=_text(answer.get("error")))
        raise SidecarUnreachableError(f"it answered with status {status}: {_text(answer.get('error'))}")

    async def version(self) -> int:
        """The version that the sidecar has, 0 when it has no state."""
        status, answer = await self._request("GET", None)
        version = answer.get("version")
        if status != 200 or not isinstance(version, int):
            raise SidecarUnreachableError(f"it answered with status {status}")
        return version

    async def metrics(self) -> str:
        """The sidecar's metrics, in the Prometheus text format."""
        status, content = await self._exchange("GET", _METRICS)
        if status != 200:
            raise SidecarUnreachableError(f"it answered with status {status}")
        return content.decode(errors="replace")

    async def tap(self, tap: Tap) -> None:
        """Tell the sidecar which requests to report."""
        status, content = await self._exchange("PUT", _TAP, msgspec.json.encode(tap))
        if status != 200:
            raise SidecarUnreachableError(f"it answered with status {status}: {content[:200].decode(errors='replace')}")

    async def _request(self, method: str, body: bytes | None) -> tuple[int, dict[str, Any]]:
        status, content = await self._exchange(method, _STATE, body)
        try:
            answer = msgspec.json.decode(content)
        except msgspec.DecodeError:
            raise SidecarUnreachableError("the answer is not JSON") from None
        if not isinstance(answer, dict):
            raise SidecarUnreachableError("the answer is not a JSON object")
        return status, answer

    async def _exchange(self, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            async with self._session.request(method, url, data=body, headers=headers) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SidecarUnreachableError(str(error) or type(error).__name__) from None


def _text(value: object) -> str:
    return _PEM.sub("<PEM removed>", value)[:_LONGEST_REASON] if isinstance(value, str) else ""
