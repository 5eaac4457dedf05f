"""Tests here make namespaces, mounts and processes: they clean up also when the run is ended from outside."""

from __future__ import annotations

import signal
from types import FrameType


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# pytest unwinds fixtures on an interrupt, but dies at once of SIGTERM.
signal.signal(signal.SIGTERM, _interrupt)
