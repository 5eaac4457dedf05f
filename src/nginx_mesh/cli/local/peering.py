"""`nginx-meshctl local`: connecting the pod networks of two meshes."""

from __future__ import annotations

from collections.abc import Callable

import click

from nginx_mesh.cli.errors import Failure
from nginx_mesh.local.paths import MeshPaths

from .mesh import LocalMesh, parse_mesh, require_root


@click.command()
@click.argument("one", type=parse_mesh, metavar="NAME")
@click.argument("other", type=parse_mesh, metavar="OTHER")
def connect(one: LocalMesh, other: LocalMesh) -> None:
    """Let the pods of two meshes reach each other.

    Pods reach the other mesh's pods by their addresses; names and services stay each mesh's own. Whether a sidecar lets
    them in is a matter of mTLS and of federation. The connection lasts until `disconnect`, or until a mesh is down.

    \b
    Example:
      nginx-meshctl local up --name shop
      nginx-meshctl local up --name store --mtls-trust-domain store.example --pod-network 10.245.0.0/16
      nginx-meshctl local connect shop store
    """
    from nginx_mesh.local.net import peering

    _change_peering(peering.connect, one, other)
    click.echo(f'meshes "{one.name}" and "{other.name}" are connected')


@click.command()
@click.argument("one", type=parse_mesh, metavar="NAME")
@click.argument("other", type=parse_mesh, metavar="OTHER")
def disconnect(one: LocalMesh, other: LocalMesh) -> None:
    """Undo `connect`.

    \b
    Example:
      nginx-meshctl local disconnect shop store
    """
    from nginx_mesh.local.net import peering

    _change_peering(peering.disconnect, one, other)
    click.echo(f'meshes "{one.name}" and "{other.name}" are no longer connected')


def _change_peering(change: Callable[[MeshPaths, MeshPaths], None], one: LocalMesh, other: LocalMesh) -> None:
    from nginx_mesh.local.net.peering import PeeringError

    require_root()
    for mesh in (one, other):
        if not mesh.exists():
            raise Failure(f'there is no mesh named "{mesh.name}"')
    try:
        change(one.paths, other.paths)
    except (PeeringError, OSError) as error:
        raise Failure(str(error)) from None
