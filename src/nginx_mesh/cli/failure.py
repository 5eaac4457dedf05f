"""Errors as kubectl words them."""

from __future__ import annotations

from typing import Any

import click


class Failure(click.ClickException):
    """An error as kubectl words it: exit code 1, and nothing on stdout."""

    def __init__(self, message: str, prefix: str = "error: ") -> None:
        super().__init__(message)
        self.prefix = prefix

    def show(self, file: Any = None) -> None:
        """Print to stderr."""
        click.echo(f"{self.prefix}{self.message}", err=True)
