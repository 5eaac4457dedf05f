"""Real servers on unix sockets: one that speaks HTTP, and one that sends whatever bytes a test wants."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Refused:
    """An answer that is an error: its status and its body."""

    status: int
    body: bytes


class HttpServer:
    """Answers requests with `answers`, by `METHOD PATH` without the query, and keeps the `requests` it got.

    An answer is sent as JSON, or as it is if it is bytes. What is not among them is refused with 404.
    """

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = dict(answers)
        self.requests: list[tuple[str, str, Any]] = []

    @contextmanager
    def listening(self, path: Path) -> Iterator[HttpServer]:
        """Serve at the socket."""
        known = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                known.requests.append((self.command, self.path, json.loads(content) if content else None))
                missing = Refused(404, b"404: Not Found")
                found = known.answers.get(f"{self.command} {self.path.partition('?')[0]}", missing)
                status, body = (found.status, found.body) if isinstance(found, Refused) else (200, found)
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - names that the library calls

            def log_message(self, format: str, *args: object) -> None:
                pass

        with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


@contextmanager
def sending(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Take one connection at the socket, read a request, let `talk` send what it likes, and close."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(65536)
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()
