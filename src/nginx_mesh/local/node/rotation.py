"""Rotation of container logs, so that they stay small."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)


def rotate_all(paths: Iterable[Path], limit: int) -> None:
    """Rotate each log. Failures are logged, and the others are rotated all the same."""
    for path in paths:
        try:
            rotate(path, limit)
        except OSError as error:
            log.warning("%s: %s", path, error.strerror)


def rotate(path: Path, limit: int) -> bool:
    """Move a log's content to `PATH.1` when it has more than `limit` bytes; returns whether it did.

    The writers keep their descriptors: the content is copied and the file emptied, so lines written in between are
    lost. When the disk has no room for the copy, the content is dropped all the same, which makes room.
    """
    try:
        if path.stat().st_size <= limit:
            return False
        try:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        except OSError as error:
            log.warning("%s: %s; its lines up to here are dropped", path, error.strerror)
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True
