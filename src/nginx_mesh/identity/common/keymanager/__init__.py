"""Key managers keep private keys while the process is down (`spireServerKeyManager`). Each has a name."""

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
"""How to make a key manager, by its name. The argument is the directory that it may keep files in."""


def open_key_manager(name: str, directory: Path) -> KeyManager:
    """The key manager called `name`. Raises KeyManagerError for an unknown name or an unfit directory."""
    if name not in KEY_MANAGERS:
        raise KeyManagerError(f"key manager {name!r} is not one of {', '.join(sorted(KEY_MANAGERS))}")
    return KEY_MANAGERS[name](directory)
