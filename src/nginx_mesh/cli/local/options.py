"""Options and arguments that the commands about local meshes share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from nginx_mesh.api.errors import FieldError
from nginx_mesh.cli.params import parse_duration
from nginx_mesh.local.net.networks import NetworkError, PodNetworks

from .mesh import LocalMesh, parse_mesh

F = TypeVar("F", bound=Callable[..., Any])


def parse_pod_network(text: str) -> PodNetworks:
    """Return the networks of a local mesh's pods. Raises FieldError."""
    try:
        return PodNetworks.parse(text)
    except NetworkError as error:
        raise FieldError("", str(error)) from None


name_option = click.option(
    "--name", "mesh", type=parse_mesh, default="local", show_default=True, metavar="NAME", help="Which local mesh."
)
"""Gives a command the mesh that it is about, as `mesh: LocalMesh`."""

namespace_option = click.option("-n", "--namespace", default="default", show_default=True, help="The namespace.")

container_option = click.option("-c", "--container", help="The container; by default the pod's first.")

wait_timeout_option = click.option(
    "--wait-timeout",
    type=parse_duration,
    metavar="DURATION",
    default="120s",
    show_default=True,
    help="How long to wait for the pods.",
)


def files_option(*, required: bool) -> Callable[[F], F]:
    """Gives a command the names of manifests, as `files: tuple[str, ...]`."""
    return click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        required=required,
        metavar="PATH",
        help="A manifest (YAML or JSON), a directory of manifests, or - for stdin. May be repeated.",
    )


def on_api(command: F) -> F:
    """Gives a command --name, and as its first argument a client of that mesh's API."""

    @functools.wraps(command)
    def with_api(mesh: LocalMesh, **arguments: Any) -> Any:
        return command(mesh.api(), **arguments)

    return name_option(with_api)  # type: ignore[return-value]
