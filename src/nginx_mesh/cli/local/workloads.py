"""`nginx-meshctl local`: changing workloads."""

from __future__ import annotations

import click

from nginx_mesh.api import discovery
from nginx_mesh.cli.errors import Failure
from nginx_mesh.cli.unix_http import UnixHttpClient

from .options import namespace_option, on_api, wait_timeout_option
from .references import object_path, parse_references
from .waiting import wait_ready

_RESTARTED_ANNOTATION = "kubectl.kubernetes.io/restartedAt"
_SCALABLE = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController")
_RESTARTABLE = ("Deployment", "StatefulSet", "DaemonSet")


@click.command()
@on_api
@click.argument("what", nargs=-1, required=True, metavar="KIND/NAME")
@namespace_option
@click.option("--replicas", type=click.IntRange(0), required=True, help="How many pods.")
def scale(api: UnixHttpClient, what: tuple[str, ...], namespace: str, replicas: int) -> None:
    """Change how many pods a workload has.

    \b
    Example:
      nginx-meshctl local scale deploy/web --replicas 5
    """
    for kind, name in parse_references(what):
        if kind.KIND not in _SCALABLE:
            raise Failure(f"{discovery.title(kind)} cannot be scaled")
        api.request("PATCH", object_path(kind, namespace, name), {"spec": {"replicas": replicas}})
        click.echo(f"{discovery.title(kind)}/{name} scaled")


@click.command()
@on_api
@click.argument("what", nargs=-1, required=True, metavar="KIND/NAME")
@namespace_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the new pods are ready.")
@wait_timeout_option
def restart(api: UnixHttpClient, what: tuple[str, ...], namespace: str, wait: bool, wait_timeout: int) -> None:
    """Replace a workload's pods by new ones, without a gap in service.

    \b
    Example:
      nginx-meshctl local restart deploy/web
    """
    from datetime import UTC, datetime

    restarted = {_RESTARTED_ANNOTATION: datetime.now(UTC).isoformat(timespec="microseconds")}
    patch = {"spec": {"template": {"metadata": {"annotations": restarted}}}}
    targets = parse_references(what)
    for kind, name in targets:
        if kind.KIND not in _RESTARTABLE:
            raise Failure(f"{discovery.title(kind)} cannot be restarted")
        api.request("PATCH", object_path(kind, namespace, name), patch)
        click.echo(f"{discovery.title(kind)}/{name} restarted")
    if wait:
        wait_ready(api, wait_timeout, [f"{kind.KIND}/{name}" for kind, name in targets], namespace)
