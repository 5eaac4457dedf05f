"""`nginx-meshctl status`: is the mesh well?"""

from __future__ import annotations

import time
from typing import Any

import click

from .errors import ControlPlaneUnreachableError, MeshError
from .group import MeshCommand
from .installation import Connection, MeshInstallation, mesh_option
from .params import parse_duration
from .table import Resource, duration, left, render, whole

_POLL_SECONDS = 0.3
_SHORT = 8
# How many problems, and how many warnings, are shown.
_MOST = 20


@click.command(cls=MeshCommand)
@mesh_option
@click.option("--wait", is_flag=True, help="Wait until the mesh is well.")
@click.option(
    "--timeout",
    "wait_timeout",
    type=parse_duration,
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="How long to wait.",
)
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml"]), help="Every sidecar, or everything.")
@click.pass_obj
def status(connection: Connection, mesh: MeshInstallation, wait: bool, wait_timeout: int, output: str | None) -> int:
    """Check that the mesh is well: daemon, identities, sidecars, policies.

    The exit code is 1 when it is not. What a person should look at, such as a policy that is not in force, is a
    warning, and does not change the exit code.

    \b
    Examples:
      nginx-meshctl status
      nginx-meshctl status --wait --timeout 2m
      nginx-meshctl status -o wide
    """
    mesh.check_exists()
    deadline = time.monotonic() + wait_timeout
    found = _status(mesh, connection.timeout)
    while wait and not found["well"] and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        found = _status(mesh, connection.timeout)
    if output in ("json", "yaml"):
        click.echo(whole(found, output), nl=False)
    else:
        click.echo(text(found, time.time(), wide=output == "wide"))
    return 0 if found["well"] else 1


def _status(mesh: MeshInstallation, timeout: float) -> Resource:
    """Return the status that the control plane tells, or one that only says that it does not."""
    try:
        return mesh.connect(timeout).status()
    except (MeshError, ControlPlaneUnreachableError) as error:
        problems = [{"about": "daemon", "message": mesh.why_silent(error)}]
        return {"well": False, "mesh": mesh.name, "problems": problems, "warnings": []}


def text(found: Resource, now: float, *, wide: bool = False) -> str:
    """Return a status document in words; `now` is seconds since the epoch, `wide` adds every sidecar."""
    count = len(found["problems"])
    verdict = "is well" if found["well"] else f"is not well: {count} problem{'s' if count != 1 else ''}"
    parts = [f'mesh "{found["mesh"]}" {verdict}']
    if "daemon" in found:
        parts.append(render(list(_summary(found, now))))
    for title, findings in (("Problems", found["problems"]), ("Warnings", found["warnings"])):
        if findings:
            lines = [f"  {finding['about']}: {finding['message']}" for finding in findings[:_MOST]]
            if len(findings) > _MOST:
                lines.append(f"  … and {len(findings) - _MOST} more: see `nginx-meshctl status -o json`")
            parts.append("\n".join([f"{title}:", *lines]))
    if wide and found.get("sidecars", {}).get("items"):
        parts.append(render(_sidecars(found["sidecars"]["items"], now)))
    return "\n\n".join(parts)


def _summary(found: Resource, now: float) -> Any:
    daemon, pods, policies = found["daemon"], found["pods"], found["policies"]
    yield "daemon", f"v{daemon['version']}, pid {daemon['pid']}, for {duration(now - daemon['since'])}"
    yield "identity", _identity(found["identity"], now)
    yield "pods", f"{pods['ready']} of {pods['pods']} ready"
    yield "sidecars", _in_sync(found["sidecars"], now)
    yield "policies", f"{policies['in_force']} of {policies['total']} in force"


def _identity(identity: Resource, now: float) -> str:
    where = f"{identity['provider']}{' at ' + identity['address'] if identity['address'] else ''}"
    parts = [f"{where}, trust domain {identity['trust_domain']}"]
    for ca in identity["authorities"]:
        name = "CA" if ca["state"] == "signing" else "next CA"
        parts.append(f"{name} {ca['id'][:_SHORT]} for {left(ca['not_after'], now)}")
    return ", ".join(parts)


def _in_sync(sidecars: Resource, now: float) -> str:
    states = sidecars["states"]
    parts = [f"{states['synced']} of {sidecars['total']} in sync"]
    parts += [f"{count} {state}" for state, count in states.items() if count and state != "synced"]
    parts.append(f"state {sidecars['state_version']}")
    if sidecars["first_expiry"] is not None:
        parts.append(f"certificates for {left(sidecars['first_expiry'], now)} or more")
    return ", ".join(parts)


def _sidecars(items: list[Resource], now: float) -> list[list[str]]:
    rows = [["NAMESPACE", "POD", "STATE", "VERSION", "EXPIRES IN", "SPIFFE ID"]]
    for item in items:
        expires = "-" if item["not_after"] is None else left(item["not_after"], now)
        version = "-" if item["version"] is None else str(item["version"])
        rows.append([item["namespace"], item["pod"], item["state"], version, expires, item["spiffe_id"] or "-"])
    return rows
