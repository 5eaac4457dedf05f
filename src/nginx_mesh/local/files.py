"""Files and directories: written atomically, and removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_file(path: Path, content: bytes, *, mode: int = 0o600, group: int | None = None) -> None:
    """Write a file atomically: a reader finds the former content or all of the new one.

    With a `group`, the file is owned by root and that group.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        if group is not None:
            os.fchown(fd, 0, group)
        os.fchmod(fd, mode)
    temporary.rename(path)


def remove_tree(path: Path) -> None:
    """Delete a directory and everything in it. Does nothing when there is no such directory."""
    if path.exists():
        shutil.rmtree(path)
