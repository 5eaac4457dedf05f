"""`nginx-meshctl tap`: requests as they happen."""

from __future__ import annotations

import json
import time

import click

from .group import MeshCommand
from .installation import MeshInstallation, mesh_option
from .table import Resource


@click.command(cls=MeshCommand)
@click.argument("what", metavar="[NAMESPACE/][KIND/]NAME")
@click.option("--to", metavar="NAME", help="Only what it sends to this workload or Service.")
@click.option("--from", "origin", metavar="NAME", help="Only what it receives from this workload.")
@click.option("--method", metavar="METHOD", help="Only requests with this method.")
@click.option("--path", metavar="PREFIX", help="Only requests whose path begins with this.")
@click.option("--status", metavar="STATUS", help="Only answers with this status, or of a class such as 5xx.")
@click.option(
    "--max-rps",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many requests a second are shown at most; when there are more, they are a sample.",
)
@click.option(
    "-n", "--namespace", default="default", show_default=True, help="Namespace of names that are given without one."
)
@mesh_option
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N requests.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
def tap(
    what: str,
    to: str | None,
    origin: str | None,
    method: str | None,
    path: str | None,
    status: str | None,
    max_rps: int,
    namespace: str,
    mesh: MeshInstallation,
    limit: int | None,
    output: str,
) -> None:
    """Watch the requests of a workload, Service or pod as they end.

    What its sidecars send (out) and receive (in) is shown until Ctrl-C. Sidecars report only while somebody
    watches. Queries, header values and bodies are never shown.

    \b
    Examples:
      nginx-meshctl tap deploy/web -n shop
      nginx-meshctl tap shop/deploy/web --from client --status 5xx
      nginx-meshctl tap shop/web --path /api --max-rps 5 -o json
    """
    reported = mesh.connect().tap(
        what,
        namespace=namespace,
        to=to,
        origin=origin,
        method=method,
        path_prefix=path,
        status=status,
        max_rps=max_rps,
    )
    shown = 0
    for line in reported:
        entry = json.loads(line)
        if "skipped" in entry:
            click.echo(f"({entry['skipped']} more were not shown: --max-rps)", err=True)
            continue
        click.echo(line.decode() if output == "json" else as_text(entry))
        shown += 1
        if shown == limit:
            return


def as_text(entry: Resource) -> str:
    """Return one request in words, in one line."""
    at = time.strftime("%H:%M:%S", time.localtime(entry["time"])) + f".{int(entry['time'] * 1000) % 1000:03d}"
    arrow = "<-" if entry["direction"] == "in" else "->"
    status = str(entry["status"]) + (f"/{entry['grpcStatus']}" if entry.get("grpcStatus") is not None else "")
    words = [at, _printable(entry["pod"]), arrow, _printable(entry["peer"]), _printable(entry["method"])]
    words += [_printable(entry["path"]), status, f"{entry['latencyMs']:.1f}ms", "mtls" if entry["mtls"] else "plain"]
    for name, title in (
        ("clientId", "client"),
        ("serverId", "server"),
        ("policy", "policy"),
        ("rateLimit", "ratelimit"),
        ("cluster", "cluster"),
    ):
        if entry.get(name):
            words.append(f"{title}={_printable(entry[name])}")
    if entry.get("reason"):
        words.append(f'reason="{_printable(entry["reason"])}"')
    return " ".join(words)


def _printable(text: str) -> str:
    """Return text that does not move the terminal's cursor, whatever a caller wrote."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
