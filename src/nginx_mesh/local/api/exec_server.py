"""Running commands in containers for other processes of this machine.

Files go over a unix socket as what they are, descriptors: the command reads and writes the caller's own, whatever these
are. One connection is one command: a JSON request that carries stdin, stdout and stderr, and a JSON answer when the
command has ended. The command ends when the caller goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

MAX_REQUEST = 128 * 1024


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run. An empty `container` means the pod's first. With `tty`, stdin is a terminal."""

    namespace: str
    pod: str
    command: list[str]
    container: str = ""
    tty: bool = False


class ExecAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. `reason` is a Kubernetes status reason when there is an `error` and nothing ran."""

    exit_code: int = 0
    error: str = ""
    reason: str = ""


Run = Callable[[ExecRequest, list[int]], Awaitable[ExecAnswer]]


class ExecServer:
    """Serves the socket at `path` (mode 0600). `run(request, [stdin, stdout, stderr])` does the work."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path = path
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()

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
        self._spawn(self._accept(listener))

    async def close(self) -> None:
        """End every command and stop."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                connection, _ = await loop.sock_accept(listener)
                self._spawn(self._serve(connection))

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
        """None when the caller went away."""
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

    def _spawn(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("exec failed", exc_info=error)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
