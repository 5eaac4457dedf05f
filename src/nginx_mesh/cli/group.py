"""Groups that import their commands when they are called, and commands whose errors are reported as a Failure."""

from __future__ import annotations

import importlib
from typing import Any

import click

from .errors import errors_as_failures


class LazyGroup(click.Group):
    """A group of commands that are imported when they are called.

    `lazy` has by the name of each command its `module:attribute`, and the line of help that is shown in the list of
    commands, so that listing them imports nothing.
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, sorted."""
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it, or None when there is no such command."""
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands for --help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy[name][1]) for name in self.list_commands(ctx)])


class MeshGroup(click.Group):
    """A group of commands that ask a mesh."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        with errors_as_failures():
            return super().invoke(ctx)


class LazyMeshGroup(MeshGroup, LazyGroup):
    """A group of commands that ask a mesh, which are imported when they are called."""


class MeshCommand(click.Command):
    """A command that asks a mesh and is in no MeshGroup."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with errors_as_failures():
            return super().invoke(ctx)
