"""Telling the user how far a command is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows a text: beside a spinner on a terminal, elsewhere as a line."""
    if sys.stdout.isatty():
        from rich.console import Console

        with Console().status("") as status:
            yield status.update
    else:
        yield click.echo
