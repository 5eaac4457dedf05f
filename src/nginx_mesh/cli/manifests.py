"""Reading the manifests that a command is given."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import Failure


def read_files(names: tuple[str, ...]) -> list[dict[str, str]]:
    """Read manifests as they are sent to a mesh: where each comes from, and its bytes in base64. Raises Failure."""
    return [
        {"source": source, "data": base64.b64encode(data).decode()} for name in names for source, data in contents(name)
    ]


def contents(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the manifests that one name stands for: where each comes from, and its bytes. Raises Failure."""
    if name == "-":
        yield "stdin", sys.stdin.buffer.read()
        return
    path = Path(name)
    try:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if file.suffix in (".yaml", ".yml", ".json"):
                    yield str(file), file.read_bytes()
        else:
            yield name, path.read_bytes()
    except FileNotFoundError:
        raise Failure(f'the path "{name}" does not exist') from None
    except OSError as error:
        raise Failure(f"cannot read {name}: {error.strerror}") from None
