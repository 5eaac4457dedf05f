"""One daemon per mesh: its process holds a lock on a file as long as it runs. The file has the pid."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .locks import is_locked, lock

_POLL_SECONDS = 0.05


class DaemonError(Exception):
    """A daemon already runs, or it does not end."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock. Raises DaemonError when another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            lock(descriptor)
        except BlockingIOError:
            raise DaemonError(f"{path}: the mesh has a daemon already") from None
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def end_holder(path: Path, seconds: float) -> None:
    """Send SIGTERM to the process that holds the lock, and wait until it has ended.

    Raises DaemonError when that takes longer than so many seconds.
    """
    deadline = time.monotonic() + seconds
    asked = False
    while is_locked(path):
        if time.monotonic() >= deadline:
            raise DaemonError(f"{path}: the daemon does not end")
        if not asked and (pid := path.read_text()).isdecimal():
            os.kill(int(pid), signal.SIGTERM)
            asked = True
        time.sleep(_POLL_SECONDS)
