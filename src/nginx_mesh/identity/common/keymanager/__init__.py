"""Where the CA's private keys rest between two runs (`spireServerKeyManager`). Implementations are found by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .base import KeyManager, KeyManagerError
from .disk import DiskKeyManager
from .memory import MemoryKeyManager

__all__ = ["KEY_MANAGERS", "KeyManager", "KeyManagerError", "open_key_manager"]

KEY_MANAGERS: dict[str, Callable[[Path], KeyManager]] = {
    "disk": DiskKeyManager,
    "memory": lambda _directory: MemoryKeyManager(),
}
"""Name → factory; the argument is the directory that a key manager may keep files in."""


def open_key_manager(name: str, directory: Path) -> KeyManager:
    """The key manager called `name`. Raises KeyManagerError for an unknown name or an unfit directory."""
    if name not in KEY_MANAGERS:
        raise KeyManagerError(f"key manager {name!r} is not one of {', '.join(sorted(KEY_MANAGERS))}")
    return KEY_MANAGERS[name](directory)
