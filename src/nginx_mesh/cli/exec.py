"""`exec`: a command in a container with this process's own stdin, stdout and stderr, or a terminal of its own."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from .client import ApiError, UnreachableError

_CHUNK = 65536


def run(path: Path, request: dict[str, object], *, stdin: bool, tty: bool) -> int:
    """Send the request to the exec socket at `path` and wait; the command's exit code.

    Without `stdin` the command reads nothing. With `tty` it gets a terminal that this one stands in for.
    Raises ApiError and UnreachableError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise UnreachableError(str(error)) from error
        content = json.dumps({**request, "tty": tty}).encode()
        if tty:
            answer = _in_terminal(connection, content)
        else:
            source = os.dup(0) if stdin else os.open(os.devnull, os.O_RDONLY)
            socket.send_fds(connection, [content], [source, 1, 2])
            os.close(source)
            answer = connection.recv(_CHUNK)
    if not answer:
        raise UnreachableError("the daemon went away")
    result = json.loads(answer)
    if result.get("error"):
        raise ApiError(result["error"], result["reason"], [])
    return int(result.get("exit_code", 0))


def _in_terminal(connection: socket.socket, content: bytes) -> bytes:
    """Pass bytes between our terminal, in raw mode, and the command's, until the command has ended."""
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
    except OSError:  # EIO: nobody has the other end any more
        return b""
