"""`nginx-meshctl version`."""

from __future__ import annotations

import click

from nginx_mesh.version import version as release

from .errors import ApiError, ControlPlaneUnreachableError, MeshError
from .installation import Connection, MeshInstallation, mesh_option


@click.command()
@mesh_option
@click.option("--client", is_flag=True, help="Only the version of nginx-meshctl.")
@click.pass_obj
def version(connection: Connection, mesh: MeshInstallation, client: bool) -> None:
    """Print the versions of what runs, and of this program.

    The versions of a mesh's processes are asked for where there is one; needs root.

    \b
    Examples:
      nginx-meshctl version
      nginx-meshctl version --client
    """
    click.echo(f"nginx-meshctl - v{release()}")
    if client:
        return
    try:
        mesh.check_exists()
    except MeshError:
        return
    try:
        found = mesh.connect(connection.timeout).versions()
    except (ApiError, ControlPlaneUnreachableError, MeshError) as error:
        click.echo(f"Unable to get versions for remaining components: {error}", err=True)
        return
    for component, installed in found.items():
        click.echo(f"{component} - v{installed}")
