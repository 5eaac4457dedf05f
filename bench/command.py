"""What the benchmark's commands have in common."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.table import Table

from nginx_mesh.sidecar.image import ImageError, ensure_image

_TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "taskset": "util-linux", "unshare": "util-linux", "wrk": "wrk"}


def prepare() -> Path:
    """See that a run can be made, and is cleaned up when interrupted; gives the sidecar's root filesystem.

    ClickException: it cannot.
    """
    if os.geteuid() != 0:
        raise click.ClickException("network namespaces need root: run it with sudo")
    missing = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if missing:
        raise click.ClickException(f"missing tools; install them with: apt-get install {' '.join(sorted(missing))}")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return ensure_image(say)
    except ImageError as error:
        raise click.ClickException(str(error)) from error


def show(tables: Iterable[Table]) -> None:
    """Print tables on stdout."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in tables:
        console.print(table)


def say(line: str) -> None:
    """Print how far it is on stderr."""
    click.echo(line, err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
