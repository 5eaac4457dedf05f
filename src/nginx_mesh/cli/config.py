"""`nginx-meshctl config`: the settings in force."""

from __future__ import annotations

import json

import click

from nginx_mesh.local.paths import MeshPaths

from . import meshes
from .group import MeshCommand, require_root
from .main import Connection
from .options import mesh_option
from .table import whole


@click.command(cls=MeshCommand)
@mesh_option
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True, help="Format.")
@click.pass_obj
def config(connection: Connection, paths: MeshPaths, output: str) -> None:
    """Display the settings of the mesh that are in force.

    Those that the mesh was made with, as its MeshConfig changed them. What may be secret is left out.

    \b
    Examples:
      nginx-meshctl config
      nginx-meshctl config -o yaml
    """
    require_root()
    found = meshes.connect(paths, connection.timeout).get("/mesh/config")
    click.echo(json.dumps(found, indent=2) + "\n" if output == "json" else whole(found, output), nl=False)
