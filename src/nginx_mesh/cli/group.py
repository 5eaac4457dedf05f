"""Commands, alone or in groups, that ask a mesh. They report what goes wrong as a Failure."""

from __future__ import annotations

from typing import Any

import click

from .errors import errors_as_failures


class MeshGroup(click.Group):
    """A group of commands that ask a mesh."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        with errors_as_failures():
            return super().invoke(ctx)


class MeshCommand(click.Command):
    """A command that asks a mesh and is in no MeshGroup."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with errors_as_failures():
            return super().invoke(ctx)
