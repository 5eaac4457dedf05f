"""What can end a command, and the words for it. Every error that a user sees is a `Failure` in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click


class Failure(click.ClickException):
    """An error as kubectl words it: `error: …` on stderr, nothing on stdout, and exit code 1."""

    def __init__(self, message: str, prefix: str = "error: ") -> None:
        super().__init__(message)
        self.prefix = prefix

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error to stderr."""
        click.echo(f"{self.prefix}{self.message}", err=True, file=file)


class MeshError(Exception):
    """A mesh cannot be found, started, reached or ended. The message tells the user why, and what to do."""


class ControlPlaneUnreachableError(Exception):
    """No server answers, or its answer is late, incomplete or not in the form that was agreed."""


class ApiError(Exception):
    """The server refuses a request.

    `reason` is a Kubernetes status reason such as NotFound, or "" from servers that give none, as an identity server
    does. `details` has one line for each fault that the server found.
    """

    def __init__(self, message: str, reason: str, details: list[str]) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.details = details


@contextmanager
def errors_as_failures() -> Iterator[None]:
    """Turn what goes wrong between a command and its mesh into a Failure."""
    try:
        yield
    except ApiError as error:
        raise _refusal(error) from None
    except MeshError as error:
        raise Failure(str(error)) from None
    except ControlPlaneUnreachableError as error:
        raise Failure(f"the daemon of the mesh does not answer: {error}") from None


@contextmanager
def identity_server_errors_as_failures(socket: Path) -> Iterator[None]:
    """Turn the silence of an identity server, whose admin socket is `socket`, into a Failure that says what to do."""
    try:
        yield
    except ControlPlaneUnreachableError as error:
        if isinstance(error.__cause__, PermissionError):
            raise Failure(f"{socket} is for root only: run this with sudo") from None
        raise Failure(
            f"no identity server answers at {socket} ({getattr(error.__cause__, 'strerror', None) or error}): "
            "start it with `nginx-mesh-identity --config FILE`, whose identity.adminSocket is this path"
        ) from None


def _refusal(error: ApiError) -> Failure:
    if error.details:
        return Failure("\n".join(f"error: {detail}" for detail in error.details), prefix="")
    if not error.reason:
        return Failure(error.message)
    return Failure(f"({error.reason}): {error.message}", prefix="Error from server ")
