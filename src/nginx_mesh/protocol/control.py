"""What goes over a sidecar's control socket beside its state: answers to updates, and which requests to report."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

SIDECAR_UID = 2102
"""The user and group that sidecars run as. Their sockets are theirs, and the redirection lets their traffic pass."""


class SidecarUnreachableError(Exception):
    """The sidecar did not answer, or not as the protocol says. Whether it took the update is not known."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every worker of the sidecar runs this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """The update's base is not what the sidecar has. Nothing changed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry is malformed. Nothing changed. `key` is empty when the sidecar named none; `reason` holds no PEM."""

    key: str
    reason: str


class Tap(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests a sidecar reports for so many seconds (0: none from now on), and how many a second at most.

    Those with this method, a path that begins so, a status in these bounds, and one of these IPs at the other side;
    what is empty is no condition.
    """

    seconds: int
    max_rps: int
    method: str = ""
    path: str = ""
    lowest: int = 0
    highest: int = 999
    peers: list[str] = []
