"""The `memory` key manager, whose secrets end with the process."""

from __future__ import annotations

from .base import check_name


class MemoryKeyManager:
    """Keeps secrets in memory only."""

    def __init__(self) -> None:
        self._secrets: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        """See KeyManager."""
        check_name(name)
        return self._secrets.get(name)

    def put(self, name: str, secret: bytes) -> None:
        """See KeyManager."""
        check_name(name)
        self._secrets[name] = secret

    def delete(self, name: str) -> None:
        """See KeyManager."""
        check_name(name)
        self._secrets.pop(name, None)

    def __str__(self) -> str:
        return "memory key manager"
