"""`nginx-meshctl version`."""

from __future__ import annotations

import click

from nginx_mesh.version import version as release


@click.command()
def version() -> None:
    """Print the version of nginx-meshctl."""
    click.echo(f"nginx-meshctl v{release()}")
