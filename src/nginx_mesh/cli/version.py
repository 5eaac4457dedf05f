"""`nginx-meshctl version`."""

from __future__ import annotations

import os

import click

from nginx_mesh.local.paths import MeshPaths
from nginx_mesh.version import version as release

from . import meshes
from .client import ApiError, UnreachableError
from .main import Connection
from .options import mesh_option


@click.command()
@mesh_option
@click.option("--client", is_flag=True, help="Only the version of nginx-meshctl.")
@click.pass_obj
def version(connection: Connection, paths: MeshPaths, client: bool) -> None:
    """Print the versions of what runs, and of this program.

    The versions of a mesh's processes are asked for where there is one; needs root.

    \b
    Examples:
      nginx-meshctl version
      nginx-meshctl version --client
    """
    click.echo(f"nginx-meshctl - v{release()}")
    if client or os.geteuid() != 0 or not meshes.exists(paths):
        return
    try:
        found = meshes.connect(paths, connection.timeout).get("/mesh/version")
    except (ApiError, UnreachableError, meshes.MeshError) as error:
        click.echo(f"Unable to get versions for remaining components: {error}", err=True)
        return
    for component, its in found.items():
        click.echo(f"{component} - v{its}")
