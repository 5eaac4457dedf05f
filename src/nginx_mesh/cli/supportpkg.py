"""`nginx-meshctl supportpkg`: all that helps to find out what is wrong with a mesh."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .errors import Failure
from .group import MeshCommand
from .installation import MeshInstallation, mesh_option
from .progress import progress


@click.command(cls=MeshCommand)
@mesh_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the working directory",
    metavar="PATH",
    help="The tarball, or the directory for it.",
)
@click.option("--disable-sidecar-logs", is_flag=True, help="Leave the logs of sidecars out.")
def supportpkg(mesh: MeshInstallation, output: Path, disable_sidecar_logs: bool) -> None:
    """Create a support package: a tarball of all that is known of the mesh.

    It has settings, objects, events, logs, the state, status and metrics of sidecars, certificates and the network.
    What is secret is left out: private keys, tokens, what Secrets and ConfigMaps hold, values of environment variables,
    arguments of commands. Applications may log secrets that nobody can know: look at the package before you pass it on.
    Only its owner may read it. When the daemon does not answer, the package has what can be collected without it.

    \b
    Examples:
      nginx-meshctl supportpkg
      nginx-meshctl supportpkg -o /tmp/mesh.tar.gz --disable-sidecar-logs
    """
    from nginx_mesh.support.archive import Archive

    mesh.check_exists()
    name = f"nsm-supportpkg-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
    target = output / f"{name}.tar.gz" if output.is_dir() else output
    try:
        with progress() as show, Archive(target, name) as archive:
            mesh.collect_support_facts(archive, show, sidecar_logs=not disable_sidecar_logs)
    except FileExistsError:
        raise Failure(f"{target} exists: name another file with --output") from None
    except OSError as error:
        raise Failure(f"{target}: {error.strerror or error}") from None
    for missing in archive.missing:
        click.echo(f"missing: {missing}", err=True)
    click.echo(f'Support package of mesh "{mesh.name}": {target}')
