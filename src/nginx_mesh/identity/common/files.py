"""Files and directories that only their owner can open."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def privacy_fault(path: Path, status: os.stat_result, kind: int) -> str | None:
    """Why others can open `path`, or None if only we can. `kind` is S_IFDIR or S_IFREG."""
    wanted, mode = ("directory", "0700") if kind == stat.S_IFDIR else ("regular file", "0600")
    if stat.S_IFMT(status.st_mode) != kind:
        return f"{path}: not a {wanted}"
    if status.st_uid != os.geteuid():
        return f"{path}: owned by uid {status.st_uid}, not by uid {os.geteuid()}"
    if status.st_mode & 0o077:
        return f"{path}: open to others (mode {stat.S_IMODE(status.st_mode):04o}); make it {mode}"
    return None
