"""Locks on files that show whether their holder runs: the kernel releases them when the process ends, however it ends.

They are open file description locks (fcntl(2)), so a child process that inherits the file holds the lock too. Unlike
locks of flock(2), they can be tested without being taken, so that testing one never makes another process fail to take
it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_FLOCK = struct.Struct("hhqqi0q")  # type, whence, start, length (0: all of the file), pid (0 as these locks demand)


def lock(fd: int) -> None:
    """Take the exclusive lock on a file open for writing. Raises BlockingIOError when another process has it."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


def is_locked(path: Path) -> bool:
    """Whether some process holds the exclusive lock on a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
