"""Reading the log of a container while the container writes it, and while the node empties it.

When a log `PATH` grows too large, its content goes to `PATH.1` and it starts empty (node/rotation.py).
"""

from __future__ import annotations

import os
from pathlib import Path

CHUNK = 1 << 16


def read_from(path: Path, position: int) -> tuple[int, bytes]:
    """Up to `CHUNK` bytes from a position on, and the position after them; nothing when there is no such file.

    A file that is shorter than the position was emptied: it is read from its beginning.
    """
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < position:
                position = 0
            file.seek(position)
            content = file.read(CHUNK)
            return position + len(content), content
    except FileNotFoundError:
        return 0, b""


def start_of_tail(path: Path, lines: int) -> int:
    """The position where the last lines of a file begin. What follows the last newline counts as a line."""
    try:
        with path.open("rb") as file:
            end = position = file.seek(0, os.SEEK_END)
            if lines == 0:
                return end
            found = 0
            while position > 0:
                start = max(0, position - CHUNK)
                file.seek(start)
                chunk = file.read(position - start)
                at = len(chunk)
                while (at := chunk.rfind(b"\n", 0, at)) >= 0:
                    # A newline at the very end closes the last line, and starts none.
                    found += start + at + 1 < end
                    if found == lines:
                        return start + at + 1
                position = start
    except FileNotFoundError:
        pass
    return 0


def earlier(path: Path, lines: int | None) -> tuple[Path, int] | None:
    """The file with the content that a log had before it was emptied, and the position to read it from.

    `lines` is how many last lines are wanted in all, None for everything. None when the log itself has enough.
    """
    before = path.with_name(f"{path.name}.1")
    if not before.exists():
        return None
    if lines is None:
        return before, 0
    if start_of_tail(path, lines) > 0 or lines == 0:
        return None
    try:
        present = path.read_bytes()
    except FileNotFoundError:
        present = b""
    return before, start_of_tail(before, lines - present.count(b"\n"))
