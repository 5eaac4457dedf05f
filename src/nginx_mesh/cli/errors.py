"""What ends a command."""

from __future__ import annotations

from typing import IO, Any

import click


class CommandError(click.ClickException):
    """A failure that is no wrong usage: `error: …` on stderr, exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it the way kubectl does."""
        click.echo(f"error: {self.format_message()}", err=True, file=file)
