"""`nginx-meshctl dashboard`: the mesh in a web browser."""

from __future__ import annotations

import click

from .errors import Failure
from .group import MeshCommand
from .installation import MeshInstallation, mesh_option


@click.command(cls=MeshCommand)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen at.  [default: 8650, or any if it is taken]"
)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen at.")
@mesh_option
@click.option("-d", "--detach", is_flag=True, help="Serve in the background, until the mesh ends or --stop is given.")
@click.option("--stop", is_flag=True, help="End the dashboard that the mesh has.")
def dashboard(port: int | None, address: str, mesh: MeshInstallation, detach: bool, stop: bool) -> None:
    """Show the mesh in a web browser: who calls whom, workloads, events.

    The page is served on this machine and shows what the mesh's daemon knows; no Prometheus is needed. It shows no
    secrets and changes nothing. Whoever reaches the address may look.

    \b
    Examples:
      nginx-meshctl dashboard
      nginx-meshctl dashboard --mesh demo --port 8650 --detach
      nginx-meshctl dashboard --mesh demo --stop
    """
    its_dashboard = mesh.dashboard()
    if stop:
        its_dashboard.stop()
        click.echo(f'the dashboard of mesh "{mesh.name}" has ended')
        return
    its_dashboard.check_startable()
    from nginx_mesh.dashboard.server import is_loopback

    title = f'dashboard of mesh "{mesh.name}"'
    try:
        if not is_loopback(address):
            click.echo(f"warning: whoever can reach {address} can look at the mesh", err=True)
        if detach:
            click.echo(f"{title}: {its_dashboard.start(address, port)}")
        else:
            its_dashboard.serve(address, port, lambda url: click.echo(f"{title}: {url} (Ctrl-C ends it)"))
    except OSError as error:
        raise Failure(f"cannot listen at {address}{'' if port is None else f' port {port}'}: {error}") from None
