"""The interface of key managers."""

from __future__ import annotations

import re
from typing import Protocol

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class KeyManagerError(Exception):
    """Secrets that cannot be read or kept. The message names the place and the reason, never the secret."""


class KeyManager(Protocol):
    """Keeps named secrets. A name is 1-64 lower-case letters, digits and dashes. `str()` says where, for messages."""

    def get(self, name: str) -> bytes | None:
        """The secret last put under `name`, None when there never was one. Raises KeyManagerError when damaged."""

    def put(self, name: str, secret: bytes) -> None:
        """Replace the secret as a whole or, on KeyManagerError, not at all. Durable on return if this manager is."""

    def delete(self, name: str) -> None:
        """Destroy the secret; nothing happens when there is none. Raises KeyManagerError when it is damaged."""


def check_name(name: str) -> None:
    """Raise KeyManagerError unless `name` is fit for a secret (and so for a file name)."""
    if not _NAME.fullmatch(name):
        raise KeyManagerError(f"secret name {name!r} is not 1-64 lower-case letters, digits and dashes")
