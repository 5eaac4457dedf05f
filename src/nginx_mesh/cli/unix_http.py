"""HTTP with JSON over a unix socket. Only the standard library is imported, so that commands start quickly."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .errors import ApiError, ControlPlaneUnreachableError

_MAX_DOCUMENT_BYTES = 256 << 20
_CHUNK_BYTES = 65536


class UnixHttpClient:
    """A client of the server behind the unix socket at `path`.

    `timeout` is for how many seconds the server may be silent; None means for ever. A document of more than
    `max_bytes` is an error, and of a refusal that is longer only the beginning is told. Every method raises ApiError
    and ControlPlaneUnreachableError.
    """

    def __init__(self, path: Path, timeout: float | None = None, *, max_bytes: int = _MAX_DOCUMENT_BYTES) -> None:
        self._path = path
        self._timeout = timeout
        self._max_bytes = max_bytes

    def get(self, path: str, **query: object) -> Any:
        """GET a document. Parameters that are None are left out of the query."""
        return self.request("GET", path, query=query)

    def request(self, method: str, path: str, body: object = None, *, query: Mapping[str, object] | None = None) -> Any:
        """Send `body` as JSON and return the decoded answer, None when it is empty."""
        with self._answer(method, path, body, query) as answer:
            content = answer.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise ControlPlaneUnreachableError(f"the answer to {method} {path} has more than {self._max_bytes} bytes")
        try:
            return json.loads(content or b"null")
        except (ValueError, RecursionError) as error:
            raise ControlPlaneUnreachableError(f"the answer to {method} {path} is no JSON: {error}") from error

    def stream(self, path: str, **query: object) -> Iterator[bytes]:
        """GET, and yield the bytes as they come."""
        with self._answer("GET", path, None, query) as answer:
            while chunk := answer.read1(_CHUNK_BYTES):
                yield chunk

    @contextmanager
    def _answer(
        self, method: str, path: str, body: object, query: Mapping[str, object] | None
    ) -> Iterator[http.client.HTTPResponse]:
        parameters = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        content = None if body is None else json.dumps(body).encode()
        connection = _UnixConnection(self._path, self._timeout)
        try:
            connection.request(method, target, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _refusal(answer.read(self._max_bytes), answer.status)
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise ControlPlaneUnreachableError(str(error)) from error
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _refusal(content: bytes, code: int) -> ApiError:
    try:
        status = json.loads(content)
        return ApiError(status["message"], status.get("reason", ""), status.get("details", []))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ApiError(content.decode(errors="replace") or f"HTTP {code}", "InternalError", [])
