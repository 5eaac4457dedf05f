"""`nginx-meshctl config`: the settings in force."""

from __future__ import annotations

import json

import click

from .group import MeshCommand
from .installation import Connection, MeshInstallation, mesh_option
from .table import whole


@click.command(cls=MeshCommand)
@mesh_option
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True, help="Format.")
@click.pass_obj
def config(connection: Connection, mesh: MeshInstallation, output: str) -> None:
    """Display the settings of the mesh that are in force.

    They are those that the mesh was made with, as its MeshConfig changed them. What may be secret is left out.

    \b
    Examples:
      nginx-meshctl config
      nginx-meshctl config -o yaml
    """
    found = mesh.connect(connection.timeout).config()
    click.echo(json.dumps(found, indent=2) + "\n" if output == "json" else whole(found, output), nl=False)
