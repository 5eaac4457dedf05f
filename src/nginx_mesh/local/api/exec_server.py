"""Running commands in containers for other processes of this machine.

The client sends the descriptors of its files over a unix socket, and the command reads and writes these files itself.
Each connection runs one command: a JSON request that carries stdin, stdout and stderr, and a JSON answer when the
command has ended. The command is ended when the client closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from nginx_mesh.observe.tasks import TaskSet

MAX_REQUEST = 128 * 1024


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The command. An empty `container` stands for the pod's first one. With `tty`, stdin is a terminal."""

    namespace: str
    pod: str
    command: list[str]
    container: str = ""
    tty: bool = False


class ExecAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The exit code or, when no command ran, an `error` and its `reason`, which is one of a Kubernetes Status."""

    exit_code: int = 0
    error: str = ""
    reason: str = ""


Run = Callable[[ExecRequest, list[int]], Awaitable[ExecAnswer]]
"""Runs a command with the descriptors of stdin, stdout and stderr. Cancelling it ends the command."""


class ExecServer:
    """Serves the socket at `path` (mode 0600)."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path = path
        self._run = run
        self._tasks = TaskSet()

    def start(self) -> None:
        """Begin to accept connections."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(old)
        listener.listen()
        self._tasks.start(self._accept(listener), "accept connections")

    async def close(self) -> None:
        """End every command and stop."""
        await self._tasks.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                connection, _ = await loop.sock_accept(listener)
                self._tasks.start(self._serve(connection), "serve a connection")

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        files: list[int] = []
        with connection, contextlib.suppress(OSError):
            await _readable(connection)
            data, files, _, _ = socket.recv_fds(connection, MAX_REQUEST, 3)
            try:
                answer = await self._answer(connection, data, files)
            finally:
                for file in files:
                    os.close(file)
            if answer is not None:
                await loop.sock_sendall(connection, msgspec.json.encode(answer))

    async def _answer(self, connection: socket.socket, data: bytes, files: list[int]) -> ExecAnswer | None:
        """The answer, None when the client has closed the connection."""
        try:
            request = msgspec.json.decode(data, type=ExecRequest)
        except msgspec.DecodeError as error:
            return ExecAnswer(error=str(error), reason="BadRequest")
        if len(files) != 3:
            return ExecAnswer(error="three file descriptors must come with the request", reason="BadRequest")
        command = asyncio.ensure_future(self._run(request, files))
        gone = asyncio.ensure_future(_readable(connection))
        try:
            await asyncio.wait((command, gone), return_when=asyncio.FIRST_COMPLETED)
            return command.result() if command.done() else None
        finally:
            command.cancel()
            gone.cancel()
            await asyncio.gather(command, gone, return_exceptions=True)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
