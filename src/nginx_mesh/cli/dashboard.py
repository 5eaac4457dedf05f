"""`nginx-meshctl dashboard`: the mesh in a web browser."""

from __future__ import annotations

import subprocess
import sys
import time

import click

from nginx_mesh.local.locks import is_locked
from nginx_mesh.local.paths import MeshPaths

from . import meshes
from .failure import Failure
from .group import MeshCommand, require_root
from .options import mesh_name

_START_SECONDS = 15.0
_STOP_SECONDS = 10.0


@click.command(cls=MeshCommand)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen at.  [default: 8650, or any if it is taken]"
)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--mesh", "paths", type=mesh_name, default="local", show_default=True, metavar="NAME", help="Which local mesh."
)
@click.option("-d", "--detach", is_flag=True, help="Go on in the background, until the mesh ends or --stop.")
@click.option("--stop", is_flag=True, help="End the dashboard that the mesh has.")
def dashboard(port: int | None, address: str, paths: MeshPaths, detach: bool, stop: bool) -> None:
    """Show the mesh in a web browser: who calls whom, workloads, events.

    A page on this machine, from what the mesh's daemon knows; no Prometheus is needed. It shows no secrets and changes
    nothing. Whoever reaches the address may look.

    \b
    Examples:
      nginx-meshctl dashboard
      nginx-meshctl dashboard --mesh demo --port 8650 --detach
      nginx-meshctl dashboard --mesh demo --stop
    """
    require_root()
    if stop:
        _stop(paths)
        return
    if not meshes.exists(paths):
        raise meshes.MeshError(f'there is no mesh named "{paths.name}": start it with `nginx-meshctl local up`')
    from nginx_mesh.dashboard.server import is_loopback
    from nginx_mesh.local.dashboard import run
    from nginx_mesh.local.pidlock import DaemonError

    if is_locked(paths.dashboard_lock):
        where = paths.dashboard_url.read_text() if paths.dashboard_url.exists() else "it is just starting or ending"
        raise Failure(f'mesh "{paths.name}" has a dashboard already: {where}')
    try:
        if not is_loopback(address):
            click.echo(f"warning: whoever can reach {address} can look at the mesh", err=True)
        if detach:
            click.echo(f'dashboard of mesh "{paths.name}": {_start(paths, address, port)}')
        else:
            run(
                paths,
                address,
                port,
                lambda url: click.echo(f'dashboard of mesh "{paths.name}": {url} (Ctrl-C ends it)'),
            )
    except DaemonError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"cannot listen at {address}{'' if port is None else f' port {port}'}: {error}") from None


def _start(paths: MeshPaths, address: str, port: int | None) -> str:
    """Start it in the background; its URL. Raises Failure."""
    command = [sys.executable, "-m", "nginx_mesh.local.dashboard", "--mesh", paths.name, "--address", address]
    if port is not None:
        command += ["--port", str(port)]
    log = paths.logs / "dashboard.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True
        )
    deadline = time.monotonic() + _START_SECONDS
    started = False
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if paths.dashboard_url.exists():
                started = True
                return paths.dashboard_url.read_text()
            time.sleep(0.05)
    finally:
        if not started:
            process.kill()
            process.wait()
    raise Failure(f"the dashboard does not start: {log.read_text(errors='replace').strip() or 'no answer'}")


def _stop(paths: MeshPaths) -> None:
    from nginx_mesh.local.pidlock import DaemonError, end_holder

    if not is_locked(paths.dashboard_lock):
        raise Failure(f'mesh "{paths.name}" has no dashboard')
    try:
        end_holder(paths.dashboard_lock, _STOP_SECONDS)
    except DaemonError as error:
        raise Failure(str(error)) from None
    click.echo(f'the dashboard of mesh "{paths.name}" has ended')
