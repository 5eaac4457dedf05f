"""`nginx-meshctl local`: the mesh on one machine."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from nginx_mesh.api import registry
from nginx_mesh.api.core import Pod
from nginx_mesh.api.meta import Object
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.values import HostPort, parse_host_port
from nginx_mesh.local.net import networks
from nginx_mesh.local.net.networks import PodNetworks
from nginx_mesh.local.paths import MeshPaths

from . import meshes
from .client import ApiError, Client
from .failure import Failure
from .group import MeshGroup, require_root
from .manifests import read_files
from .options import Parsed, duration, mesh_flags, mesh_name, parse_pod_network
from .table import Resource, render, table, whole
from .targets import all_of, default_container, kind_of, named, path_of, pod_of
from .waiting import progress, wait_gone, wait_ready
from .wanted import Wanted, wanted
from .wanted import check as check_settings

F = TypeVar("F", bound=Callable[..., Any])

# Settings of meshes in clusters, and their flags.
_NOT_LOCAL = {
    "enable_udp": "--enable-udp",
    "environment": "--environment",
}
_RESTARTED_ANNOTATION = "kubectl.kubernetes.io/restartedAt"
_ALL = ("pods", "services", "daemonsets", "deployments", "statefulsets", "jobs")
_SCALABLE = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController")
_RESTARTABLE = ("Deployment", "StatefulSet", "DaemonSet")


def _on_mesh(command: F) -> F:
    """Gives a command --name, and as its first arguments the mesh's paths and a client of its daemon."""

    @functools.wraps(command)
    def with_client(paths: MeshPaths, **arguments: Any) -> Any:
        require_root()
        return command(paths, meshes.connect(paths), **arguments)

    return _name_option(with_client)  # type: ignore[return-value]


_name_option = click.option(
    "--name", "paths", type=mesh_name, default="local", show_default=True, metavar="NAME", help="Which local mesh."
)
_namespace_option = click.option("-n", "--namespace", default="default", show_default=True, help="The namespace.")
_files_help = "A manifest (YAML or JSON), a directory of manifests, or - for stdin. May be repeated."


@click.group(cls=MeshGroup)
def local() -> None:
    """Run the mesh on this machine, without a cluster.

    Kubernetes manifests run as processes in network namespaces, each pod with its own address and, where injection is
    enabled, its own sidecar. Needs root.

    \b
    Start a mesh with an application, look at it, end it:
      nginx-meshctl local up -f app.yaml
      nginx-meshctl local get pods -A
      nginx-meshctl local down
    """


@local.command()
@_name_option
@click.option("-f", "--filename", "files", multiple=True, metavar="PATH", help=_files_help)
@_namespace_option
@click.option(
    "--wait-timeout",
    type=duration,
    metavar="DURATION",
    default="120s",
    show_default=True,
    help="How long to wait for the pods.",
)
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
    help="The configuration of identity, as that of nginx-mesh-identity.",
)
@mesh_flags
@click.pass_context
def up(
    ctx: click.Context,
    paths: MeshPaths,
    files: tuple[str, ...],
    namespace: str,
    wait_timeout: int,
    pod_network: PodNetworks,
    identity_config: Path | None,
    settings: Any,
) -> None:
    """Start a mesh, apply manifests to it, and wait until every pod is ready.

    A mesh that exists is kept: its daemon is started again if need be, and flags that are given change its settings.
    Those about the CA's upstream authority, keys and storage do so by another daemon in place; pods go on meanwhile.

    \b
    Examples:
      nginx-meshctl local up
      nginx-meshctl local up -f app/ -f policies.yaml --mtls-mode strict
      nginx-meshctl local up --name second -f app.yaml --pod-network 10.245.0.0/16
    """
    from nginx_mesh.sidecar.image import ImageError, ensure_image

    require_root()
    documents = read_files(files)
    is_new = not meshes.exists(paths)
    said = wanted(_given_flags(ctx, settings), identity_config)
    _check_settings(paths, said, is_new=is_new)
    if not is_new and _is_given(ctx, "pod_network"):
        _check_pod_network(paths, pod_network)
    try:
        with progress() as show:
            image = ensure_image(show)
    except ImageError as error:
        raise Failure(str(error)) from None
    if is_new:
        meshes.create(paths, said.applied(MeshSettings()), pod_network, said.identity)
    try:
        client = _daemon(paths, image, said)
        if said.live and not is_new:
            client.request("PATCH", "/mesh/settings", meshes.encode_settings(said.live))
        _apply(client, documents, namespace)
    except (ApiError, meshes.MeshError):
        if is_new:
            meshes.destroy(paths)
        raise
    wait_ready(client, wait_timeout)
    click.echo(f'mesh "{paths.name}" is up')


@local.command()
@_on_mesh
@click.option("-f", "--filename", "files", multiple=True, required=True, metavar="PATH", help=_files_help)
@_namespace_option
def apply(_paths: MeshPaths, client: Client, files: tuple[str, ...], namespace: str) -> None:
    """Create or change objects as manifests say: all of them, or none if any is wrong.

    \b
    Examples:
      nginx-meshctl local apply -f policies.yaml
      cat app.yaml | nginx-meshctl local apply -f -
    """
    if not _apply(client, read_files(files), namespace):
        raise Failure("no objects passed to apply")


@local.command()
@_on_mesh
@click.argument("targets", nargs=-1, metavar="[KIND NAME... | KIND/NAME...]")
@click.option("-f", "--filename", "files", multiple=True, metavar="PATH", help=_files_help)
@_namespace_option
@click.option("--all", "everything", is_flag=True, help="Delete all objects of KIND in the namespace.")
@click.option("--ignore-not-found", is_flag=True, help="Take an object that is not there as deleted.")
@click.option("--grace-period", type=click.IntRange(0), help="Seconds that pods get to end, instead of their own.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the objects are gone.")
def delete(
    _paths: MeshPaths,
    client: Client,
    targets: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str,
    everything: bool,
    ignore_not_found: bool,
    grace_period: int | None,
    wait: bool,
) -> None:
    """Delete objects, and what belongs to them.

    \b
    Examples:
      nginx-meshctl local delete -f app.yaml
      nginx-meshctl local delete pod web-0 web-1
      nginx-meshctl local delete deploy/web -n shop
    """
    if bool(files) == bool(targets):
        raise Failure("say what to delete: either files (-f) or a kind and names")
    query = {"gracePeriodSeconds": grace_period}
    missing: list[str] = []
    deleted: list[tuple[str, str]] = []
    if files:
        documents = {"files": read_files(files), "namespace": namespace}
        for item in client.request("POST", "/mesh/delete", documents, query=query):
            kind = registry.by_kind(item["kind"])
            if item["uid"] is None:
                missing.append(f'{kind.PLURAL} "{item["name"]}" not found')
            else:
                click.echo(f'{registry.title(kind)} "{item["name"]}" deleted')
                deleted.append((path_of(kind, item["namespace"], item["name"]), item["uid"]))
    else:
        for kind, name in all_of(client, targets, namespace) if everything else named(targets):
            path = path_of(kind, namespace if kind.NAMESPACED else "", name)
            try:
                gone = client.request("DELETE", path, query=query)
            except ApiError as error:
                if error.reason != "NotFound":
                    raise
                missing.append(error.message)
            else:
                click.echo(f'{registry.title(kind)} "{name}" deleted')
                deleted.append((path, gone["metadata"]["uid"]))
    if wait:
        for path, uid in deleted:
            wait_gone(client, path, uid)
    if missing and not ignore_not_found:
        raise Failure("\n".join(f"Error from server (NotFound): {reason}" for reason in missing), prefix="")


@local.command()
@_on_mesh
@click.argument("what", nargs=-1, required=True, metavar="KIND[,KIND...] [NAME...]")
@_namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@click.option(
    "-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), help="More columns, or the whole objects."
)
def get(
    _paths: MeshPaths, client: Client, what: tuple[str, ...], namespace: str, all_namespaces: bool, output: str | None
) -> None:
    """Show objects.

    \b
    Examples:
      nginx-meshctl local get pods -A -o wide
      nginx-meshctl local get deploy,svc -n shop
      nginx-meshctl local get pod/web-0 -o yaml
    """
    names: list[tuple[type[Object], str]] = []
    if "/" in what[0] or len(what) > 1:
        names = named(what)
        found = [client.get(path_of(kind, namespace if kind.NAMESPACED else "", name)) for kind, name in names]
        wanted = list(dict.fromkeys(kind for kind, _ in names))
    else:
        titles = [part for title in what[0].split(",") for part in (_ALL if title == "all" else (title,))]
        wanted = list(dict.fromkeys(kind_of(title) for title in titles))
        found = []
        for kind in wanted:
            where = namespace if kind.NAMESPACED and not all_namespaces else ""
            found += client.get(path_of(kind, where))["items"]
    if output in ("json", "yaml"):
        click.echo(whole(found[0] if len(names) == 1 else _as_list(found), output), nl=False)
    elif output == "name":
        for item in found:
            click.echo(f"{registry.title(registry.by_kind(item['kind']))}/{item['metadata']['name']}")
    elif not found:
        anywhere = all_namespaces or not any(kind.NAMESPACED for kind in wanted)
        click.echo("No resources found" if anywhere else f"No resources found in {namespace} namespace.", err=True)
    else:
        groups = [(kind, [item for item in found if item["kind"] == kind.KIND]) for kind in wanted]
        shown = [(kind, items) for kind, items in groups if items]
        tables = [
            table(
                kind.KIND,
                items,
                now=time.time(),
                wide=output == "wide",
                with_namespace=all_namespaces and kind.NAMESPACED,
                prefix=f"{registry.title(kind)}/" if len(wanted) > 1 else "",
            )
            for kind, items in shown
        ]
        click.echo("\n\n".join(tables))


@local.command()
@_on_mesh
@click.argument("what", nargs=-1, required=True, metavar="KIND NAME... | KIND/NAME...")
@_namespace_option
def describe(_paths: MeshPaths, client: Client, what: tuple[str, ...], namespace: str) -> None:
    """Show an object in full, with what happened to it.

    \b
    Examples:
      nginx-meshctl local describe pod web-0
      nginx-meshctl local describe deploy/web -n shop
    """
    from .describe import describe as describe_object

    texts = []
    for kind, name in named(what):
        path = path_of(kind, namespace if kind.NAMESPACED else "", name)
        answer = client.get(path + "/description")
        more = {part: answer.get(part) for part in ("endpoints", "identity")}
        texts.append(describe_object(answer["object"], answer["events"], now=time.time(), **more))
    click.echo("\n\n\n".join(texts))


@local.command()
@_on_mesh
@click.argument("target", metavar="POD|KIND/NAME")
@_namespace_option
@click.option("-c", "--container", help="The container; by default the pod's first.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the container writes.")
@click.option("--tail", type=click.IntRange(-1), default=-1, help="Only the last lines; -1 for all.")
def logs(
    _paths: MeshPaths, client: Client, target: str, namespace: str, container: str | None, follow: bool, tail: int
) -> None:
    """Print what a container wrote.

    \b
    Examples:
      nginx-meshctl local logs web-0
      nginx-meshctl local logs -f deploy/web -c nginx-mesh-sidecar
    """
    pod = pod_of(client, target, namespace)
    query = {
        "container": container or default_container(pod),
        "follow": "true" if follow else None,
        "tailLines": tail if tail >= 0 else None,
    }
    try:
        for chunk in client.stream(path_of(Pod, namespace, pod["metadata"]["name"]) + "/log", **query):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        sys.exit(130)


@local.command("exec", context_settings={"ignore_unknown_options": False})
@_on_mesh
@click.argument("target", metavar="POD|KIND/NAME")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG...]")
@_namespace_option
@click.option("-c", "--container", help="The container; by default the pod's first.")
@click.option("-i", "--stdin", is_flag=True, help="Pass stdin on to the command.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
def exec_(
    paths: MeshPaths,
    client: Client,
    target: str,
    command: tuple[str, ...],
    namespace: str,
    container: str | None,
    stdin: bool,
    tty: bool,
) -> NoReturn:
    """Run a command in a container; its exit code is this command's.

    \b
    Examples:
      nginx-meshctl local exec web-0 -- curl -s http://api.shop
      nginx-meshctl local exec -it deploy/web -- sh
    """
    from .exec import run

    if tty and not (stdin and sys.stdin.isatty()):
        click.echo("Unable to use a TTY - input is not a terminal", err=True)
        tty = False
    pod = pod_of(client, target, namespace)
    request = {
        "namespace": namespace,
        "pod": pod["metadata"]["name"],
        "container": container or default_container(pod),
        "command": list(command),
    }
    sys.exit(run(meshes.exec_socket(paths), request, stdin=stdin, tty=tty))


@local.command()
@_on_mesh
@click.argument("what", nargs=-1, required=True, metavar="KIND/NAME")
@_namespace_option
@click.option("--replicas", type=click.IntRange(0), required=True, help="How many pods.")
def scale(_paths: MeshPaths, client: Client, what: tuple[str, ...], namespace: str, replicas: int) -> None:
    """Change how many pods a workload has.

    \b
    Example:
      nginx-meshctl local scale deploy/web --replicas 5
    """
    for kind, name in named(what):
        if kind.KIND not in _SCALABLE:
            raise Failure(f"{registry.title(kind)} cannot be scaled")
        client.request("PATCH", path_of(kind, namespace, name), {"spec": {"replicas": replicas}})
        click.echo(f"{registry.title(kind)}/{name} scaled")


@local.command()
@_on_mesh
@click.argument("what", nargs=-1, required=True, metavar="KIND/NAME")
@_namespace_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the new pods are ready.")
@click.option(
    "--wait-timeout", type=duration, metavar="DURATION", default="120s", show_default=True, help="How long to wait."
)
def restart(
    _paths: MeshPaths, client: Client, what: tuple[str, ...], namespace: str, wait: bool, wait_timeout: int
) -> None:
    """Replace a workload's pods by new ones, without a gap in service.

    \b
    Example:
      nginx-meshctl local restart deploy/web
    """
    from datetime import UTC, datetime

    restarted = {_RESTARTED_ANNOTATION: datetime.now(UTC).isoformat(timespec="microseconds")}
    patch = {"spec": {"template": {"metadata": {"annotations": restarted}}}}
    targets = named(what)
    for kind, name in targets:
        if kind.KIND not in _RESTARTABLE:
            raise Failure(f"{registry.title(kind)} cannot be restarted")
        client.request("PATCH", path_of(kind, namespace, name), patch)
        click.echo(f"{registry.title(kind)}/{name} restarted")
    if wait:
        wait_ready(client, wait_timeout, [f"{kind.KIND}/{name}" for kind, name in targets], namespace)


@local.command()
@_name_option
@click.option("--all", "everything", is_flag=True, help="All local meshes.")
def down(paths: MeshPaths, everything: bool) -> None:
    """End a mesh: its pods, its network, and all that it kept.

    \b
    Examples:
      nginx-meshctl local down
      nginx-meshctl local down --all
    """
    require_root()
    if not everything and not meshes.exists(paths):
        raise Failure(f'there is no mesh named "{paths.name}"')
    for mesh in meshes.all_meshes() if everything else [paths]:
        meshes.destroy(mesh)
        click.echo(f'mesh "{mesh.name}" is down')


@local.command()
@click.argument("one", type=mesh_name, metavar="NAME")
@click.argument("other", type=mesh_name, metavar="OTHER")
def connect(one: MeshPaths, other: MeshPaths) -> None:
    """Let the pods of two meshes reach each other.

    Pods reach the other mesh's pods by their addresses; names and services stay each mesh's own. Whether a sidecar lets
    them in is a matter of mTLS and of federation. It lasts until `disconnect`, or until either mesh is down.

    \b
    Example:
      nginx-meshctl local up --name shop
      nginx-meshctl local up --name store --mtls-trust-domain store.example --pod-network 10.245.0.0/16
      nginx-meshctl local connect shop store
    """
    from nginx_mesh.local.net import peering as links

    _on_links(links.connect, one, other)
    click.echo(f'meshes "{one.name}" and "{other.name}" are connected')


@local.command()
@click.argument("one", type=mesh_name, metavar="NAME")
@click.argument("other", type=mesh_name, metavar="OTHER")
def disconnect(one: MeshPaths, other: MeshPaths) -> None:
    """Undo `connect`.

    \b
    Example:
      nginx-meshctl local disconnect shop store
    """
    from nginx_mesh.local.net import peering as links

    _on_links(links.disconnect, one, other)
    click.echo(f'meshes "{one.name}" and "{other.name}" are no longer connected')


@local.command()
@_name_option
@click.option(
    "--listen",
    type=Parsed("address", parse_host_port),
    default="127.0.0.1:9887",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to serve them.",
)
def metrics(paths: MeshPaths, listen: HostPort) -> None:
    """Serve the metrics of all sidecars to a Prometheus on this machine, until Ctrl-C.

    It finds them by http_sd_configs at http://HOST:PORT/targets. They are served to whoever can connect.

    \b
    Examples:
      nginx-meshctl local metrics
      nginx-meshctl local metrics --listen 127.0.0.1:9999
    """
    import asyncio

    from .scraped import serve

    require_root()
    meshes.connect(paths)
    listening = functools.partial(click.echo, f"serving the metrics of mesh {paths.name} at http://{listen}/targets")
    try:
        asyncio.run(serve(meshes.api_socket(paths), listen, listening))
    except OSError as error:
        raise Failure(f"cannot listen at {listen}: {error.strerror or error}") from None


@local.command("list")
def list_() -> None:
    """Show the local meshes of this machine."""
    from nginx_mesh.local.net import peering as links

    require_root()
    found = meshes.all_meshes()
    if not found:
        click.echo("No local meshes.", err=True)
        return
    rows = [["NAME", "DAEMON", "PODS READY", "POD NETWORK", "CONNECTED TO"]]
    for paths in found:
        if meshes.is_running(paths):
            state = meshes.connect(paths).get("/mesh/readiness")
            daemon, ready = "running", f"{state['ready']}/{state['pods']}"
        else:
            daemon, ready = "stopped", "-"
        connected = ",".join(links.peers(paths)) or "-"
        rows.append([paths.name, daemon, ready, str(links.pod_networks(paths)), connected])
    click.echo(render(rows))


def _on_links(change: Callable[[MeshPaths, MeshPaths], None], one: MeshPaths, other: MeshPaths) -> None:
    from nginx_mesh.local.net.peering import PeeringError

    require_root()
    for paths in (one, other):
        if not meshes.exists(paths):
            raise Failure(f'there is no mesh named "{paths.name}"')
    try:
        change(one, other)
    except (PeeringError, OSError) as error:
        raise Failure(str(error)) from None


def _check_pod_network(paths: MeshPaths, wanted: PodNetworks) -> None:
    from nginx_mesh.local.net import peering as links

    kept = links.pod_networks(paths)
    if kept != wanted:
        raise Failure(f'the pod network of mesh "{paths.name}" is {kept} and cannot change while the mesh exists')


def _given_flags(ctx: click.Context, settings: MeshSettings) -> dict[str, tuple[str, Any]]:
    """The flags that were given: by the setting's name, the flag and its value."""
    flags = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    names = [name for name in settings.__struct_fields__ if _is_given(ctx, name)]
    return {name: (flags[name], getattr(settings, name)) for name in names}


def _check_settings(paths: MeshPaths, said: Wanted, *, is_new: bool) -> None:
    """Raise Failure for settings that a mesh, new or not, cannot be given."""
    for name in said.given.keys() & _NOT_LOCAL.keys():
        raise Failure(f"{_NOT_LOCAL[name]} has no meaning for a local mesh")
    present = MeshSettings() if is_new else meshes.made_with(paths)
    result = said.applied(present)
    if not is_new and result.trust_domain != present.trust_domain:
        raise Failure(
            f'the trust_domain of mesh "{paths.name}" is {present.trust_domain} and cannot change while the mesh '
            "exists: start another one with --name"
        )
    check_settings(said, result, meshes.identity_config(paths))


def _daemon(paths: MeshPaths, image: Path, said: Wanted) -> Client:
    """A client of the mesh's daemon, which runs with what was said afterwards."""
    present = meshes.made_with(paths)
    settings = said.restarting(present)
    if settings != present or said.identity not in (b"", meshes.identity_config(paths)):
        click.echo(f'mesh "{paths.name}": starting its daemon with other settings of identity')
        return meshes.replace(paths, image, settings, said.identity)
    if meshes.is_running(paths):
        return meshes.connect(paths)
    click.echo(f'mesh "{paths.name}": starting')
    return meshes.start_daemon(paths, image)


def _is_given(ctx: click.Context, parameter: str) -> bool:
    return ctx.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


def _apply(client: Client, files: list[dict[str, str]], namespace: str) -> int:
    """Apply manifests; how many objects they hold."""
    outcomes = client.request("POST", "/mesh/apply", {"files": files, "namespace": namespace}) if files else []
    for outcome in outcomes:
        for warning in outcome["warnings"]:
            click.echo(f"Warning: {warning}", err=True)
        click.echo(f"{outcome['object']} {outcome['outcome']}")
    return len(outcomes)


def _as_list(items: list[Resource]) -> Resource:
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
