"""Commands that talk to a daemon, alone or in groups: what goes wrong in any of them is a Failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from . import meshes
from .client import ApiError, UnreachableError
from .failure import Failure


class MeshGroup(click.Group):
    """Turns what goes wrong in any command into a Failure."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _failures():
            return super().invoke(ctx)


class MeshCommand(click.Command):
    """The same of a command that is in no such group."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        with _failures():
            return super().invoke(ctx)


def require_root() -> None:
    """Raise Failure for who is not root."""
    if os.geteuid() != 0:
        raise Failure("local meshes need root, as pods are network namespaces: run this with sudo")


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise _refusal(error) from None
    except meshes.MeshError as error:
        raise Failure(str(error)) from None
    except UnreachableError as error:
        raise Failure(f"the daemon of the mesh does not answer: {error}") from None


def _refusal(error: ApiError) -> Failure:
    if error.details:
        return Failure("\n".join(f"error: {detail}" for detail in error.details), prefix="")
    if not error.reason:
        return Failure(error.message)
    return Failure(f"({error.reason}): {error.message}", prefix="Error from server ")
