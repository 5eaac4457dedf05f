"""The interface of key managers."""

from __future__ import annotations

import re
from typing import Protocol

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class KeyManagerError(Exception):
    """A secret that cannot be read or kept. The message names the place and the reason, never the secret."""


class KeyManager(Protocol):
    """Keeps secrets by name: 1-64 lower-case letters, digits and dashes. `str()` says where they are, for messages."""

    def get(self, name: str) -> bytes | None:
        """The secret that was last put under `name`, or None. Raises KeyManagerError when it is damaged."""

    def put(self, name: str, secret: bytes) -> None:
        """Replace the secret as a whole or, when this raises KeyManagerError, not at all."""

    def delete(self, name: str) -> None:
        """Destroy the secret, if there is one. Raises KeyManagerError when it is damaged."""


def check_name(name: str) -> None:
    """Raise KeyManagerError unless `name` is fit for a secret (and so for a file name)."""
    if not _NAME.fullmatch(name):
        raise KeyManagerError(f"secret name {name!r} is not 1-64 lower-case letters, digits and dashes")
