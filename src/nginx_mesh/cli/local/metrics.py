"""`nginx-meshctl local metrics`: the metrics of all sidecars for a Prometheus on this machine."""

from __future__ import annotations

import functools

import click

from nginx_mesh.api.values import HostPort, parse_host_port
from nginx_mesh.cli.errors import Failure
from nginx_mesh.cli.params import Parsed

from .mesh import LocalMesh
from .options import name_option


@click.command()
@name_option
@click.option(
    "--listen",
    type=Parsed("address", parse_host_port),
    default="127.0.0.1:9887",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to serve the metrics.",
)
def metrics(mesh: LocalMesh, listen: HostPort) -> None:
    """Serve the metrics of all sidecars to a Prometheus on this machine, until Ctrl-C.

    Prometheus finds the sidecars by http_sd_configs at http://HOST:PORT/targets. The metrics are served to whoever can
    connect.

    \b
    Examples:
      nginx-meshctl local metrics
      nginx-meshctl local metrics --listen 127.0.0.1:9999
    """
    import asyncio

    from .metrics_proxy import serve

    mesh.api()  # raises unless a daemon runs
    listening = functools.partial(click.echo, f"serving the metrics of mesh {mesh.name} at http://{listen}/targets")
    try:
        asyncio.run(serve(mesh.api_socket, listen, listening))
    except OSError as error:
        raise Failure(f"cannot listen at {listen}: {error.strerror or error}") from None
