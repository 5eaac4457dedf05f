"""`nginx-meshctl top`: who had how many requests, and how they went."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from nginx_mesh.api.values import HostPort, parse_host_port
from nginx_mesh.traffic.documents import Document, parse_quantity
from nginx_mesh.traffic.measure import KINDS, Kind, TrafficQuery

from .control_plane import traffic_path
from .errors import Failure
from .group import MeshCommand
from .installation import MeshInstallation, mesh_option
from .params import Parsed
from .table import Resource, render, whole

_SHORT_NAMES = {"deploy": "deployments", "sts": "statefulsets", "ds": "daemonsets", "po": "pods", "ns": "namespaces"}
_WATCH_SECONDS = 5.0
_NO_TRAFFIC = "No traffic in the last 30 seconds."
_CLEAR = "\x1b[H\x1b[2J"


@click.command(cls=MeshCommand)
@click.argument("what", default="deployments", metavar="[KIND[/NAME]]")
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the resources.")
@mesh_option
@click.option(
    "--prometheus",
    type=Parsed("address", parse_host_port),
    metavar="HOST:PORT",
    help="Ask this Prometheus instead of a mesh.",
)
@click.option("-w", "--watch", is_flag=True, help="Display them again every 5 seconds.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="The TrafficMetricsList as it is.")
@click.pass_context
def top(
    ctx: click.Context,
    what: str,
    namespace: str,
    mesh: MeshInstallation,
    prometheus: HostPort | None,
    watch: bool,
    output: str | None,
) -> None:
    """Display traffic statistics of the last 30 seconds.

    For a kind, they are the number and the success of the requests that its resources received and sent. For one
    resource, they are the same for each of its peers, with latencies. Kinds are pods, deployments (the default),
    statefulsets, daemonsets and namespaces. Callers' sidecars count; answers of 1xx and 2xx are successes. A local
    mesh's daemon knows them without a Prometheus; if the mesh is configured with one (--prometheus-address), the daemon
    asks that.

    \b
    Examples:
      nginx-meshctl top
      nginx-meshctl top pods -n shop
      nginx-meshctl top deployments/web -n shop --watch
      nginx-meshctl top --prometheus 127.0.0.1:9090
    """
    kind, name = _resource(what)
    if prometheus is not None and ctx.get_parameter_source("mesh") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--mesh and --prometheus cannot be used together", ctx)
    ask = _asking_prometheus(prometheus) if prometheus is not None else mesh.connect().traffic
    question = TrafficQuery(kind, namespace if kind.namespaced else "", name, edges=bool(name))
    while True:
        found = ask(question)
        text = whole(found, output) if output else (_edges if name else _totals)(found, kind) + "\n"
        click.echo(f"{_CLEAR if watch and not output else ''}{text}", nl=False)
        if not watch:
            return
        time.sleep(_WATCH_SECONDS)


def _resource(what: str) -> tuple[Kind, str]:
    title, slash, name = what.partition("/")
    title = title.lower()
    by_singular = {kind.kind.lower(): kind for kind in KINDS.values()}
    kind = KINDS.get(_SHORT_NAMES.get(title, title)) or by_singular.get(title)
    if kind is None:
        raise Failure(f'there is no traffic of "{title}"; known are {", ".join(sorted(KINDS))}')
    if slash and (not name or "/" in name):
        raise Failure(f'"{what}" is not KIND/NAME')
    return kind, name


def _asking_prometheus(address: HostPort) -> Callable[[TrafficQuery], Document]:
    import asyncio

    from nginx_mesh.traffic.prometheus import Prometheus
    from nginx_mesh.traffic.server import SourceError, answer

    async def ask(question: TrafficQuery) -> Document:
        client = Prometheus(address)
        try:
            return await answer(client.flows, question, traffic_path(question), time.time())
        except SourceError as error:
            raise Failure(str(error)) from None
        finally:
            await client.close()

    return lambda question: asyncio.run(ask(question))


def _totals(found: Any, kind: Kind) -> str:
    rows: dict[str, dict[str, Resource]] = {}
    for item in found["items"]:
        rows.setdefault(item["resource"]["name"], {})[item["edge"]["direction"]] = _metrics(item)
    if not rows:
        return _NO_TRAFFIC
    table = [[kind.kind, "Incoming Success", "Outgoing Success", "NumRequests"]]
    for name, directions in rows.items():
        requests = sum(_requests(metrics) for metrics in directions.values())
        table.append([name, *(_success(directions.get(direction)) for direction in ("from", "to")), str(requests)])
    return render(table)


def _edges(found: Any, kind: Kind) -> str:
    if not found["items"]:
        return _NO_TRAFFIC
    table = [[kind.kind, "Direction", "Resource", "Success Rate", "P99", "P90", "P50", "NumRequests"]]
    table.append([found["resource"]["name"], *[""] * 7])
    for direction in ("to", "from"):
        for item in found["items"]:
            if item["edge"]["direction"] == direction:
                peer, metrics = item["edge"]["resource"], _metrics(item)
                times = (_milliseconds(metrics.get(f"p{share}_response_latency")) for share in (99, 90, 50))
                other = peer["name"]
                if peer.get("namespace") and peer["namespace"] != item["resource"].get("namespace"):
                    other = f"{peer['namespace']}/{other}"
                table.append(["", direction.title(), other, _success(metrics), *times, str(_requests(metrics))])
    return render(table)


def _metrics(item: Any) -> Resource:
    return {metric["name"]: parse_quantity(metric["value"]) for metric in item["metrics"]}


def _requests(metrics: Resource) -> int:
    return int(metrics["success_count"] + metrics["failure_count"])


def _success(metrics: Resource | None) -> str:
    if metrics is None:
        return ""
    requests = _requests(metrics)
    return f"{100 * metrics['success_count'] / requests:.2f}%" if requests else "<nil>"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}ms"
