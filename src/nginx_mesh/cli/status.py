"""`nginx-meshctl status`: is the mesh well?"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from nginx_mesh.local.paths import MeshPaths

from . import meshes
from .client import UnreachableError
from .failure import Failure
from .group import MeshCommand, require_root
from .main import Connection
from .options import duration, mesh_option
from .table import Resource, left, render, whole
from .table import duration as words

_POLL_SECONDS = 0.3
_SHORT = 8
# How many findings of a kind are told in words.
_MOST = 20


@click.command(cls=MeshCommand)
@mesh_option
@click.option("--wait", is_flag=True, help="Wait until the mesh is well.")
@click.option(
    "--timeout",
    "wait_timeout",
    type=duration,
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="How long to wait.",
)
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml"]), help="Every sidecar, or everything.")
@click.pass_obj
def status(connection: Connection, paths: MeshPaths, wait: bool, wait_timeout: int, output: str | None) -> None:
    """Check that the mesh is well: daemon, identities, sidecars, policies.

    The exit code is 1 when it is not. What a person should look at, such as a policy that is not in force, is a
    warning, and no reason for that.

    \b
    Examples:
      nginx-meshctl status
      nginx-meshctl status --wait --timeout 2m
      nginx-meshctl status -o wide
    """
    require_root()
    if not meshes.exists(paths):
        raise Failure(f'there is no mesh named "{paths.name}": start it with `nginx-meshctl local up`')
    deadline = time.monotonic() + wait_timeout
    found = _look(paths, connection.timeout)
    while wait and not found["well"] and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        found = _look(paths, connection.timeout)
    if output in ("json", "yaml"):
        click.echo(whole(found, output), nl=False)
    else:
        click.echo(text(found, time.time(), wide=output == "wide"))
    sys.exit(0 if found["well"] else 1)


def _look(paths: MeshPaths, timeout: float) -> Resource:
    """The daemon's document; a shorter one when it does not answer."""
    try:
        found: Resource = meshes.connect(paths, timeout).get("/mesh/status")
    except meshes.MeshError:
        return _lost(paths, "does not run (its pods go on): start it again with `nginx-meshctl local up`")
    except UnreachableError as error:
        return _lost(paths, f"does not answer ({error}); its log is {meshes.daemon_log(paths)}")
    return found


def _lost(paths: MeshPaths, message: str) -> Resource:
    problems = [{"about": "daemon", "message": message}]
    return {"well": False, "mesh": paths.name, "problems": problems, "warnings": []}


def text(found: Resource, now: float, *, wide: bool = False) -> str:
    """A status document for people. `now` is Unix seconds."""
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
    yield "daemon", f"v{daemon['version']}, pid {daemon['pid']}, for {words(now - daemon['since'])}"
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
