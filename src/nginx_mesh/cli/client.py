"""A client of the local mesh's API, over its unix socket. Standard library only, so that commands start quickly."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


class ApiError(Exception):
    """The server refused. `reason` is a Kubernetes status reason, such as NotFound; `details` one line per fault.

    Servers that are not the local mesh's may give no reason: then it is "".
    """

    def __init__(self, message: str, reason: str, details: list[str]) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.details = details


class UnreachableError(Exception):
    """No server answers on the socket."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Talks to the server behind the socket at `path`. Every method raises ApiError and UnreachableError.

    `timeout` is for how many seconds the server may be silent, None for ever.
    """

    def __init__(self, path: Path, timeout: float | None = None) -> None:
        self._path = path
        self._timeout = timeout

    def get(self, path: str, **query: object) -> Any:
        """GET, decoded."""
        return self.request("GET", path, query=query)

    def request(self, method: str, path: str, body: object = None, *, query: Mapping[str, object] | None = None) -> Any:
        """Send `body` as JSON and return what comes back."""
        with self._answer(method, path, body, query) as answer:
            return json.loads(answer.read() or b"null")

    def stream(self, path: str, **query: object) -> Iterator[bytes]:
        """GET, as bytes come."""
        with self._answer("GET", path, None, query) as answer:
            while chunk := answer.read1(65536):
                yield chunk

    @contextmanager
    def _answer(
        self, method: str, path: str, body: object, query: Mapping[str, object] | None
    ) -> Iterator[http.client.HTTPResponse]:
        parameters = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        connection = _UnixConnection(self._path, self._timeout)
        try:
            try:
                content = None if body is None else json.dumps(body).encode()
                connection.request(method, target, content, {"Content-Type": "application/json"})
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise UnreachableError(str(error)) from error
            if answer.status >= 400:
                raise _failure(answer.read(), answer.status)
            try:
                yield answer
            except (OSError, http.client.HTTPException) as error:
                raise UnreachableError(str(error)) from error
        finally:
            connection.close()


def _failure(content: bytes, code: int) -> ApiError:
    try:
        status = json.loads(content)
        return ApiError(status["message"], status.get("reason", ""), status.get("details", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(content.decode(errors="replace") or f"HTTP {code}", "InternalError", [])
