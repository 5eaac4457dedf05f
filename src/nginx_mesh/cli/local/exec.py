"""Has the daemon run a command in a container, with this process's own files or a terminal of the command's own."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from nginx_mesh.cli.errors import ApiError, ControlPlaneUnreachableError

_CHUNK = 65536


def run(path: Path, request: dict[str, object], *, stdin: bool, tty: bool) -> int:
    """Send the request to the exec socket at `path`, wait for the command to end, and return its exit code.

    Without `stdin` the command reads nothing. With `tty` it gets a terminal, and this process
    passes on what is typed and shown. Raises ApiError and ControlPlaneUnreachableError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise ControlPlaneUnreachableError(str(error)) from error
        content = json.dumps({**request, "tty": tty}).encode()
        if tty:
            answer = _in_terminal(connection, content)
        else:
            source = os.dup(0) if stdin else os.open(os.devnull, os.O_RDONLY)
            socket.send_fds(connection, [content], [source, 1, 2])
            os.close(source)
            answer = connection.recv(_CHUNK)
    if not answer:
        raise ControlPlaneUnreachableError("the daemon went away")
    result = json.loads(answer)
    if result.get("error"):
        raise ApiError(result["error"], result["reason"], [])
    return int(result.get("exit_code", 0))


def _in_terminal(connection: socket.socket, content: bytes) -> bytes:
    """Pass bytes between our terminal, in raw mode, and the command's; return the daemon's answer when it has ended."""
    import fcntl
    import select
    import signal
    import termios
    import tty

    ours, theirs = os.openpty()

    def copy_size(*_: object) -> None:
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(ours, termios.TIOCSWINSZ, size)

    copy_size()
    socket.send_fds(connection, [content], [theirs, theirs, theirs])
    os.close(theirs)
    before = termios.tcgetattr(0)
    old_handler = signal.signal(signal.SIGWINCH, copy_size)
    try:
        tty.setraw(0, termios.TCSADRAIN)
        watched = [0, ours, connection.fileno()]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if ours in ready:
                if shown := _read_terminal(ours):
                    sys.stdout.buffer.write(shown)
                    sys.stdout.buffer.flush()
                else:
                    watched.remove(ours)
            elif connection.fileno() in ready:
                return connection.recv(_CHUNK)
            elif 0 in ready:
                if typed := os.read(0, _CHUNK):
                    os.write(ours, typed)
                else:
                    watched.remove(0)
    finally:
        signal.signal(signal.SIGWINCH, old_handler)
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.close(ours)


def _read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, _CHUNK)
    except OSError:  # EIO: no process has the other end open any more.
        return b""
