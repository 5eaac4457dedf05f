"""How the commands about identity find the authority that they are about."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from nginx_mesh.cli.control_plane import ControlPlane, IdentityAuthority
from nginx_mesh.cli.errors import identity_server_errors_as_failures
from nginx_mesh.cli.installation import MeshInstallation, mesh_option
from nginx_mesh.cli.unix_http import UnixHttpClient

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class IdentitySource:
    """An authority and the mesh that it is part of, None for an identity server that is a process of its own."""

    authority: IdentityAuthority
    mesh: ControlPlane | None


def on_identity_source(command: F) -> F:
    """Gives a command --mesh and --socket, and as its first argument the IdentitySource that they mean."""

    @functools.wraps(command)
    @click.pass_context
    def with_source(ctx: click.Context, /, mesh: MeshInstallation, socket: Path | None, **arguments: Any) -> Any:
        if socket is None:
            control_plane = mesh.connect()
            return command(IdentitySource(control_plane.identity_authority, control_plane), **arguments)
        if ctx.get_parameter_source("mesh") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--mesh and --socket cannot be used together", ctx)
        with identity_server_errors_as_failures(socket):
            return command(IdentitySource(IdentityAuthority(UnixHttpClient(socket)), None), **arguments)

    with_socket = click.option(
        "--socket",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The admin socket of an nginx-mesh-identity process, instead of a local mesh.",
    )(with_source)
    return mesh_option(with_socket)  # type: ignore[return-value]


def on_authority(command: F) -> F:
    """Gives a command --mesh and --socket, and as its first argument the IdentityAuthority that they mean."""

    @functools.wraps(command)
    def with_authority(source: IdentitySource, **arguments: Any) -> Any:
        return command(source.authority, **arguments)

    return on_identity_source(with_authority)  # type: ignore[return-value]
