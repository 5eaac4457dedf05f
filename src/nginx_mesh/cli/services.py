"""`nginx-meshctl services`: the Services of the mesh and what is behind them."""

from __future__ import annotations

import click

from .group import MeshCommand
from .installation import Connection, MeshInstallation, mesh_option
from .table import Resource, render, whole

_NONE = "<none>"


@click.command(cls=MeshCommand)
@mesh_option
@click.option("-n", "--namespace", help="Only Services of this namespace; by default those of all.")
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml"]), help="More columns, or everything.")
@click.pass_obj
def services(connection: Connection, mesh: MeshInstallation, namespace: str | None, output: str | None) -> None:
    """List the Services of the mesh.

    Each is listed with its ports and the addresses behind it. A Service belongs to the mesh when a pod behind it has a
    sidecar, when it names the identity of what is behind it, or, while nothing is behind it, when its namespace has
    sidecars injected.

    \b
    Examples:
      nginx-meshctl services
      nginx-meshctl services -n shop -o wide
    """
    found = mesh.connect(connection.timeout).services(namespace)
    if output in ("json", "yaml"):
        click.echo(whole(found, output), nl=False)
    elif not found:
        click.echo("No services of the mesh" + (f" in namespace {namespace}." if namespace else "."), err=True)
    else:
        click.echo(table(found, wide=output == "wide"))


def table(found: list[Resource], *, wide: bool = False) -> str:
    """Return a table with a line for each upstream of each Service; `wide` adds columns."""
    rows = [["Service", "Upstream", "Port", *(["Protocol", "Pod", "Ready", "Identity"] if wide else [])]]
    for service in found:
        name, ports = f"{service['namespace']}/{service['name']}", service["ports"]
        numbers = ",".join(str(port["port"]) for port in ports) or _NONE
        protocols = ",".join(dict.fromkeys(port["protocol"] for port in ports)) or _NONE
        for upstream in service["upstreams"] or [None]:
            row = [name, upstream["address"] if upstream else _NONE, numbers]
            rows.append([*row, protocols, *_about(upstream)] if wide else row)
            name = ""
    return render(rows)


def _about(upstream: Resource | None) -> list[str]:
    if upstream is None:
        return [_NONE, "", ""]
    identity = upstream["spiffe_id"] or ("<unreadable>" if upstream["meshed"] else "<no sidecar>")
    return [upstream["pod"] or _NONE, str(upstream["ready"]).lower(), identity]
