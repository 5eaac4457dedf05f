"""Writing files with secrets."""

from __future__ import annotations

import os
from pathlib import Path


def write_file(path: Path, text: str, mode: int) -> None:
    """Write a file whose mode is right before there is anything in it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
