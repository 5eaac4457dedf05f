"""`nginx-meshctl local`: starting, ending and listing meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.cli.errors import ApiError, Failure, MeshError
from nginx_mesh.cli.manifests import read_files
from nginx_mesh.cli.params import Parsed
from nginx_mesh.cli.progress import progress
from nginx_mesh.cli.settings_flags import mesh_flags
from nginx_mesh.cli.table import render
from nginx_mesh.cli.unix_http import UnixHttpClient
from nginx_mesh.local.net import networks
from nginx_mesh.local.net.networks import PodNetworks

from . import daemon
from .manifests import apply_manifests
from .mesh import LocalMesh, all_meshes, require_root
from .options import files_option, name_option, namespace_option, parse_pod_network, wait_timeout_option
from .requested_settings import RequestedSettings, check_startable, requested_settings
from .waiting import wait_ready

# Settings that only meshes in clusters have, and their flags.
_NOT_LOCAL = {
    "enable_udp": "--enable-udp",
    "environment": "--environment",
}


@click.command()
@name_option
@files_option(required=False)
@namespace_option
@wait_timeout_option
@click.option(
    "--pod-network",
    type=Parsed("network", parse_pod_network),
    default=str(networks.DEFAULT),
    show_default=True,
    help="IPv4 network of a new mesh's pods; meshes that are to be connected need different ones.",
)
@click.option(
    "--identity-config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The configuration file of identity, as nginx-mesh-identity has it.",
)
@mesh_flags
@click.pass_context
def up(
    ctx: click.Context,
    mesh: LocalMesh,
    files: tuple[str, ...],
    namespace: str,
    wait_timeout: int,
    pod_network: PodNetworks,
    identity_config: Path | None,
    settings: Any,
) -> None:
    """Start a mesh, apply manifests to it, and wait until every pod is ready.

    A mesh that exists is kept: its daemon is started again if need be, and flags that are given change its settings.
    Flags about the CA's upstream authority, keys and storage restart the daemon for that; pods go on meanwhile.

    \b
    Examples:
      nginx-meshctl local up
      nginx-meshctl local up -f app/ -f policies.yaml --mtls-mode strict
      nginx-meshctl local up --name second -f app.yaml --pod-network 10.245.0.0/16
    """
    from nginx_mesh.sidecar.image import ImageError, ensure_image

    require_root()
    documents = read_files(files)
    is_new = not mesh.exists()
    requested = requested_settings(_given_flags(ctx, settings), identity_config)
    _check_requested(mesh, requested, is_new=is_new)
    if not is_new and _is_given(ctx, "pod_network"):
        _check_pod_network(mesh, pod_network)
    try:
        with progress() as show:
            image = ensure_image(show)
    except ImageError as error:
        raise Failure(str(error)) from None
    if is_new:
        daemon.create(mesh, requested.applied_to(MeshSettings()), pod_network, requested.identity)
    try:
        api = _run_daemon(mesh, image, requested)
        if requested.live and not is_new:
            api.request("PATCH", "/mesh/settings", msgspec.to_builtins(requested.live))
        apply_manifests(api, documents, namespace)
    except (ApiError, MeshError):
        if is_new:
            daemon.destroy(mesh)
        raise
    wait_ready(api, wait_timeout)
    click.echo(f'mesh "{mesh.name}" is up')


@click.command()
@name_option
@click.option("--all", "everything", is_flag=True, help="All local meshes.")
def down(mesh: LocalMesh, everything: bool) -> None:
    """End a mesh: its pods, its network, and all that it kept.

    \b
    Examples:
      nginx-meshctl local down
      nginx-meshctl local down --all
    """
    require_root()
    if not everything and not mesh.exists():
        raise Failure(f'there is no mesh named "{mesh.name}"')
    for each in all_meshes() if everything else [mesh]:
        daemon.destroy(each)
        click.echo(f'mesh "{each.name}" is down')


@click.command("list")
def list_() -> None:
    """Show the local meshes of this machine."""
    from nginx_mesh.local.net import peering

    require_root()
    found = all_meshes()
    if not found:
        click.echo("No local meshes.", err=True)
        return
    rows = [["NAME", "DAEMON", "PODS READY", "POD NETWORK", "CONNECTED TO"]]
    for mesh in found:
        state, ready = "stopped", "-"
        if mesh.is_running():
            readiness = mesh.api().get("/mesh/readiness")
            state, ready = "running", f"{readiness['ready']}/{readiness['pods']}"
        connected = ",".join(peering.peers(mesh.paths)) or "-"
        rows.append([mesh.name, state, ready, str(peering.pod_networks(mesh.paths)), connected])
    click.echo(render(rows))


def _given_flags(ctx: click.Context, settings: MeshSettings) -> dict[str, tuple[str, Any]]:
    """Return the flags that were given: by the name of the setting, the flag and its value."""
    flags = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    names = [name for name in settings.__struct_fields__ if _is_given(ctx, name)]
    return {name: (flags[name], getattr(settings, name)) for name in names}


def _is_given(ctx: click.Context, parameter: str) -> bool:
    return ctx.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


def _check_requested(mesh: LocalMesh, requested: RequestedSettings, *, is_new: bool) -> None:
    """Raise Failure for settings that the mesh, which `is_new` or exists, cannot be given."""
    for name in requested.given.keys() & _NOT_LOCAL.keys():
        raise Failure(f"{_NOT_LOCAL[name]} has no meaning for a local mesh")
    present = MeshSettings() if is_new else mesh.settings()
    result = requested.applied_to(present)
    if not is_new and result.trust_domain != present.trust_domain:
        raise Failure(
            f'the trust_domain of mesh "{mesh.name}" is {present.trust_domain} and cannot change while the mesh '
            "exists: start another one with --name"
        )
    check_startable(requested, result, mesh.identity_config())


def _check_pod_network(mesh: LocalMesh, requested: PodNetworks) -> None:
    from nginx_mesh.local.net import peering

    kept = peering.pod_networks(mesh.paths)
    if kept != requested:
        raise Failure(f'the pod network of mesh "{mesh.name}" is {kept} and cannot change while the mesh exists')


def _run_daemon(mesh: LocalMesh, image: Path, requested: RequestedSettings) -> UnixHttpClient:
    """Have the daemon run with the requested settings that it only takes when it starts; return a client of its API."""
    present = mesh.settings()
    settings = requested.restarting(present)
    if settings != present or requested.identity not in (b"", mesh.identity_config()):
        click.echo(f'mesh "{mesh.name}": starting its daemon with other settings of identity')
        return daemon.restart(mesh, image, settings, requested.identity)
    if mesh.is_running():
        return mesh.api()
    click.echo(f'mesh "{mesh.name}": starting')
    return daemon.start(mesh, image)
