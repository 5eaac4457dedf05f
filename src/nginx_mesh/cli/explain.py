"""`nginx-meshctl explain`: what would become of a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from .group import MeshCommand
from .installation import MeshInstallation, mesh_option
from .table import Resource, whole

_WIDEST_STEP = len("destination")


@click.command(cls=MeshCommand)
@click.option(
    "--from", "origin", required=True, metavar="[NAMESPACE/[KIND/]]NAME", help="The workload or pod that calls."
)
@click.option("--to", "target", required=True, metavar="[NAMESPACE/]SERVICE[:PORT]", help="The Service that it calls.")
@click.option(
    "--method", metavar="METHOD", default="", help="Method of the request; by default GET, and POST for gRPC."
)
@click.option("--path", metavar="PATH", default="/", show_default=True, help="Path of the request, with the query.")
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request. May be repeated."
)
@click.option(
    "-n", "--namespace", default="default", show_default=True, help="Namespace of names that are given without one."
)
@mesh_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
def explain(
    origin: str,
    target: str,
    method: str,
    path: str,
    headers: Sequence[str],
    namespace: str,
    mesh: MeshInstallation,
    output: str,
) -> None:
    """Say what would become of a request, and which object decides each step.

    The sidecars of both sides are asked, and answer by what they have in force now. No request is sent, no limit is
    charged and nothing is counted. The exit code is 0 whether the request would be allowed or refused.

    \b
    Examples:
      nginx-meshctl explain --from shop/web --to shop/api
      nginx-meshctl explain --from shop/deploy/web --to shop/api:8080 --method DELETE --path /items/1
      nginx-meshctl explain --from web --to api -n shop --header 'x-user: test' -o json
    """
    given = [_header(text) for text in headers]
    found = mesh.connect().explain(
        origin=origin, to=target, namespace=namespace, method=method, path=path, headers=given
    )
    click.echo(whole(found, "json") if output == "json" else as_text(found), nl=output != "json")


def as_text(found: Resource) -> str:
    """Return an explanation in words: the verdict, then the steps in order."""
    lines = [found["summary"], "", _question(found)]
    numbers = iter(range(1, 1000))
    caller = found["caller"]
    lines += ["", f"At {caller['pod']}{_of_pods(caller)}{_proving(caller)}:", *_steps(found["steps"], numbers)]
    for way in found["ways"]:
        if len(found["ways"]) > 1:
            lines += ["", f"{way['share'] * 100:.3g} % go to {way['cluster']}:"]
        lines += _steps(way["steps"], numbers)
        for called in way["called"]:
            alike = f", and {called['pods'] - 1} more alike" if called["pods"] > 1 else ""
            lines += ["", f"At {called['pod']}{_proving(called)}{alike}:", *_steps(called["steps"], numbers)]
    return "\n".join(lines)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(f'"{text}" is not NAME: VALUE', param_hint="--header")
    return name.strip(" \t"), value.strip(" \t")


def _question(found: Resource) -> str:
    request, caller, to = found["request"], found["caller"], found["destination"]
    what = "A TCP connection" if request is None else f"{request['method']} {request['path']}"
    at = f" ({to['address']})" if to["address"] else ""
    return f"{what} from {caller['workload']} to Service {to['service']}, port {to['port']}{at}, {to['protocol']}"


def _of_pods(caller: Resource) -> str:
    return f", one of {caller['pods']} pods" if caller["pods"] > 1 else ""


def _proving(pod: Resource) -> str:
    return f", {pod['spiffeId']}" if pod["spiffeId"] else ""


def _steps(steps: Sequence[Any], numbers: Iterator[int]) -> list[str]:
    return [f"  {next(numbers):>2}. {step['step']:<{_WIDEST_STEP}}  {_said(step)}" for step in steps]


def _said(step: Resource) -> str:
    by = f"  [{step['object']}]" if step["object"] else ""
    return f"{_outcome(step)}{step['message']}{by}"


def _outcome(step: Resource) -> str:
    if step["outcome"] == "refuse":
        if step["grpcStatus"] is not None:
            return f"REFUSED, gRPC status {step['grpcStatus']}: "
        return f"REFUSED, {step['status']}: " if step["status"] is not None else "REFUSED: "
    return "not known: " if step["outcome"] == "unknown" else ""
