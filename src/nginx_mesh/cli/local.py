"""`nginx-meshctl local`: the mesh on one machine."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import click

from nginx_mesh.api.core import Pod
from nginx_mesh.api.meta import Object
from nginx_mesh.local import registry
from nginx_mesh.local.paths import MeshPaths

from . import meshes
from .client import ApiError, Client, UnreachableError
from .options import mesh_flags
from .table import Resource, render, table

F = TypeVar("F", bound=Callable[..., Any])

_POLL_SECONDS = 0.2
_FAILED_LOG_LINES = 10
_DURATION = re.compile(r"([0-9]+)(s|m|h|)")
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
# Settings of meshes in clusters, and their flags.
_NOT_LOCAL = {
    "upstream_authority": "--mtls-upstream-ca-conf",
    "persistent_storage": "--persistent-storage",
    "enable_udp": "--enable-udp",
    "environment": "--environment",
}
_RESTARTED_ANNOTATION = "kubectl.kubernetes.io/restartedAt"
_ALL = ("pods", "services", "daemonsets", "deployments", "statefulsets", "jobs")
_SCALABLE = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController")
_RESTARTABLE = ("Deployment", "StatefulSet", "DaemonSet")


class Failure(click.ClickException):
    """An error as kubectl words it: exit code 1, and nothing on stdout."""

    def __init__(self, message: str, prefix: str = "error: ") -> None:
        super().__init__(message)
        self.prefix = prefix

    def show(self, file: Any = None) -> None:
        """Print to stderr."""
        click.echo(f"{self.prefix}{self.message}", err=True)


class _Group(click.Group):
    """Turns what goes wrong in any command into a Failure."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ApiError as error:
            raise _refusal(error) from None
        except meshes.MeshError as error:
            raise Failure(str(error)) from None
        except UnreachableError as error:
            raise Failure(f"the daemon of the mesh does not answer: {error}") from None


def duration(text: str) -> int:
    """Seconds, from text such as 90, 90s, 5m or 1h."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter(f'"{text}" is not a duration such as 90s, 5m or 1h')
    return int(found[1]) * _DURATION_UNITS[found[2]]


def mesh_name(text: str) -> MeshPaths:
    """The paths of the mesh with that name."""
    try:
        return MeshPaths(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _on_mesh(command: F) -> F:
    """Gives a command --name, and as its first arguments the mesh's paths and a client of its daemon."""

    @functools.wraps(command)
    def with_client(paths: MeshPaths, **arguments: Any) -> Any:
        _require_root()
        return command(paths, meshes.connect(paths), **arguments)

    return _name_option(with_client)  # type: ignore[return-value]


_name_option = click.option(
    "--name", "paths", type=mesh_name, default="local", show_default=True, metavar="NAME", help="Which local mesh."
)
_namespace_option = click.option("-n", "--namespace", default="default", show_default=True, help="The namespace.")
_files_help = "A manifest (YAML or JSON), a directory of manifests, or - for stdin. May be repeated."


@click.group(cls=_Group)
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
@mesh_flags
@click.pass_context
def up(
    ctx: click.Context, paths: MeshPaths, files: tuple[str, ...], namespace: str, wait_timeout: int, settings: Any
) -> None:
    """Start a mesh, apply manifests to it, and wait until every pod is ready.

    A mesh that exists is kept: its daemon is started again if need be, and flags that are given change its settings.

    \b
    Examples:
      nginx-meshctl local up
      nginx-meshctl local up -f app/ -f policies.yaml --mtls-mode strict
      nginx-meshctl local up --name second -f app.yaml
    """
    from nginx_mesh.sidecar.image import ImageError, ensure_image

    _require_root()
    documents = _read_files(files)
    is_new = not meshes.exists(paths)
    given = {name: getattr(settings, name) for name in settings.__struct_fields__ if _is_given(ctx, name)}
    for name in given.keys() & _NOT_LOCAL.keys():
        raise Failure(f"{_NOT_LOCAL[name]} has no meaning for a local mesh")
    try:
        with _progress() as show:
            image = ensure_image(show)
    except ImageError as error:
        raise Failure(str(error)) from None
    if is_new:
        meshes.create(paths, settings)
    if meshes.is_running(paths):
        client = meshes.connect(paths)
    else:
        click.echo(f'mesh "{paths.name}": starting')
        client = meshes.start_daemon(paths, image)
    try:
        if given and not is_new:
            client.request("PATCH", "/mesh/settings", meshes.encode_settings(given))
        _apply(client, documents, namespace)
    except ApiError:
        if is_new:
            meshes.destroy(paths)
        raise
    _wait_ready(client, wait_timeout)
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
    if not _apply(client, _read_files(files), namespace):
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
        documents = {"files": _read_files(files), "namespace": namespace}
        for item in client.request("POST", "/mesh/delete", documents, query=query):
            kind = registry.by_kind(item["kind"])
            if item["uid"] is None:
                missing.append(f'{kind.PLURAL} "{item["name"]}" not found')
            else:
                click.echo(f'{registry.title(kind)} "{item["name"]}" deleted')
                deleted.append((_path(kind, item["namespace"], item["name"]), item["uid"]))
    else:
        for kind, name in _all_of(client, targets, namespace) if everything else _named(targets):
            path = _path(kind, namespace if kind.NAMESPACED else "", name)
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
            _wait_gone(client, path, uid)
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
        names = _named(what)
        found = [client.get(_path(kind, namespace if kind.NAMESPACED else "", name)) for kind, name in names]
        wanted = list(dict.fromkeys(kind for kind, _ in names))
    else:
        titles = [part for title in what[0].split(",") for part in (_ALL if title == "all" else (title,))]
        wanted = list(dict.fromkeys(_kind(title) for title in titles))
        found = []
        for kind in wanted:
            where = namespace if kind.NAMESPACED and not all_namespaces else ""
            found += client.get(_path(kind, where))["items"]
    if output in ("json", "yaml"):
        _print_whole(found[0] if len(names) == 1 else _as_list(found), output)
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
    for kind, name in _named(what):
        path = _path(kind, namespace if kind.NAMESPACED else "", name)
        answer = client.get(path + "/description")
        texts.append(
            describe_object(answer["object"], answer["events"], now=time.time(), endpoints=answer.get("endpoints"))
        )
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
    pod = _pod(client, target, namespace)
    query = {
        "container": container or _default_container(pod),
        "follow": "true" if follow else None,
        "tailLines": tail if tail >= 0 else None,
    }
    try:
        for chunk in client.stream(_path(Pod, namespace, pod["metadata"]["name"]) + "/log", **query):
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
    pod = _pod(client, target, namespace)
    request = {
        "namespace": namespace,
        "pod": pod["metadata"]["name"],
        "container": container or _default_container(pod),
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
    for kind, name in _named(what):
        if kind.KIND not in _SCALABLE:
            raise Failure(f"{registry.title(kind)} cannot be scaled")
        client.request("PATCH", _path(kind, namespace, name), {"spec": {"replicas": replicas}})
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
    targets = _named(what)
    for kind, name in targets:
        if kind.KIND not in _RESTARTABLE:
            raise Failure(f"{registry.title(kind)} cannot be restarted")
        client.request("PATCH", _path(kind, namespace, name), patch)
        click.echo(f"{registry.title(kind)}/{name} restarted")
    if wait:
        _wait_ready(client, wait_timeout, [f"{kind.KIND}/{name}" for kind, name in targets], namespace)


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
    _require_root()
    if not everything and not meshes.exists(paths):
        raise Failure(f'there is no mesh named "{paths.name}"')
    for mesh in meshes.all_meshes() if everything else [paths]:
        meshes.destroy(mesh)
        click.echo(f'mesh "{mesh.name}" is down')


@local.command("list")
def list_() -> None:
    """Show the local meshes of this machine."""
    _require_root()
    found = meshes.all_meshes()
    if not found:
        click.echo("No local meshes.", err=True)
        return
    rows = [["NAME", "DAEMON", "PODS READY"]]
    for paths in found:
        if meshes.is_running(paths):
            state = meshes.connect(paths).get("/mesh/readiness")
            rows.append([paths.name, "running", f"{state['ready']}/{state['pods']}"])
        else:
            rows.append([paths.name, "stopped", "-"])
    click.echo(render(rows))


def _require_root() -> None:
    if os.geteuid() != 0:
        raise Failure("local meshes need root, as pods are network namespaces: run this with sudo")


def _is_given(ctx: click.Context, parameter: str) -> bool:
    return ctx.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


def _refusal(error: ApiError) -> Failure:
    if error.details:
        return Failure("\n".join(f"error: {detail}" for detail in error.details), prefix="")
    return Failure(f"({error.reason}): {error.message}", prefix="Error from server ")


def _read_files(names: tuple[str, ...]) -> list[dict[str, str]]:
    """Manifests as they are sent: where each came from, and its bytes in base64."""
    return [
        {"source": source, "data": base64.b64encode(data).decode()}
        for name in names
        for source, data in _contents(name)
    ]


def _contents(name: str) -> Iterator[tuple[str, bytes]]:
    if name == "-":
        yield "stdin", sys.stdin.buffer.read()
        return
    path = Path(name)
    try:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if file.suffix in (".yaml", ".yml", ".json"):
                    yield str(file), file.read_bytes()
        else:
            yield name, path.read_bytes()
    except FileNotFoundError:
        raise Failure(f'the path "{name}" does not exist') from None
    except OSError as error:
        raise Failure(f"cannot read {name}: {error.strerror}") from None


def _apply(client: Client, files: list[dict[str, str]], namespace: str) -> int:
    """Apply manifests; how many objects they hold."""
    outcomes = client.request("POST", "/mesh/apply", {"files": files, "namespace": namespace}) if files else []
    for outcome in outcomes:
        click.echo(f"{outcome['object']} {outcome['outcome']}")
    return len(outcomes)


def _wait_ready(client: Client, timeout: int, only: list[str] | None = None, namespace: str | None = None) -> None:
    """Wait until all pods and workloads are ready, or those named only; fail with the reasons why not."""
    deadline = time.monotonic() + timeout
    query = {"object": ",".join(only) if only else None, "namespace": namespace}
    shown = ""
    with _progress() as show:
        while True:
            state = client.get("/mesh/readiness", **query)
            progress = f"{state['ready']}/{state['pods']} pods are ready"
            if progress != shown and state["pods"]:
                show(progress)
                shown = progress
            hopeless = [entry for entry in state["waiting"] if entry["hopeless"]]
            if not state["waiting"] or hopeless or time.monotonic() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
    if state["waiting"]:
        after = "" if hopeless else f" after {timeout} s"
        raise Failure("\n".join(_reasons(client, hopeless or state["waiting"], after)))


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Gives a function that says how far things are: beside a spinner on a terminal, else a line each."""
    if sys.stdout.isatty():
        from rich.console import Console

        with Console().status("") as status:
            yield status.update
    else:
        yield click.echo


def _reasons(client: Client, waiting: list[Resource], after: str) -> Iterator[str]:
    yield f"{len(waiting)} not ready{after}:"
    for entry in waiting:
        yield f"  {entry['object']} in namespace {entry['namespace']}: {entry['reason']}"
        if entry.get("container"):
            lines = _last_lines(client, entry["namespace"], entry["object"].partition("/")[2], entry["container"])
            if lines:
                yield f"    container {entry['container']} wrote last:"
                yield from (f"      {line}" for line in lines)


def _last_lines(client: Client, namespace: str, pod: str, container: str) -> list[str]:
    path = _path(Pod, namespace, pod) + "/log"
    try:
        written = b"".join(client.stream(path, container=container, tailLines=_FAILED_LOG_LINES))
    except ApiError:
        return []
    return written.decode(errors="replace").splitlines()


def _wait_gone(client: Client, path: str, uid: str) -> None:
    """Wait until the object is gone, even if another one has its name by then."""
    while True:
        try:
            if client.get(path)["metadata"]["uid"] != uid:
                return
        except ApiError as error:
            if error.reason == "NotFound":
                return
            raise
        time.sleep(_POLL_SECONDS)


def _kind(title: str) -> type[Object]:
    """The kind with that resource name, such as pods, po or deployment.apps."""
    kind = registry.find(title)
    if kind is None:
        raise Failure(f'the server doesn\'t have a resource type "{title}"')
    return kind


def _all_of(client: Client, what: tuple[str, ...], namespace: str) -> list[tuple[type[Object], str]]:
    """Every object of the kinds, of one namespace."""
    return [
        (kind, item["metadata"]["name"])
        for kind in map(_kind, what)
        for item in client.get(_path(kind, namespace if kind.NAMESPACED else ""))["items"]
    ]


def _named(what: tuple[str, ...]) -> list[tuple[type[Object], str]]:
    """`KIND NAME...` or `KIND/NAME...` as kinds and names."""
    if any("/" in part for part in what):
        if not all(part.count("/") == 1 for part in what):
            raise Failure("there is no need to specify a resource type as a separate argument when passing KIND/NAME")
        pairs = [part.split("/") for part in what]
        return [(_kind(title), name) for title, name in pairs]
    if len(what) == 1:
        raise Failure("resource(s) were provided, but no name was specified")
    return [(_kind(what[0]), name) for name in what[1:]]


def _path(kind: type[Object], namespace: str, name: str = "") -> str:
    """Where the API has objects of a kind, or one of them; an empty namespace means all."""
    parts = ["namespaces", namespace, kind.PLURAL] if namespace else [kind.PLURAL]
    return "/".join([registry.path(kind), *(quote(part, safe="") for part in [*parts, *([name] if name else [])])])


def _as_list(items: list[Resource]) -> Resource:
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def _print_whole(content: Resource, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(content, indent=4, ensure_ascii=False))
    else:
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        click.echo(yaml.dump(content, Dumper=dumper, default_flow_style=False, allow_unicode=True), nl=False)


def _pod(client: Client, target: str, namespace: str) -> Resource:
    """A pod by its name, or one of the pods of a workload by KIND/NAME."""
    if "/" not in target:
        return _resource(client.get(_path(Pod, namespace, target)))
    ((kind, name),) = _named((target,))
    owner = client.get(_path(kind, namespace, name))
    if kind.KIND == "Pod":
        return _resource(owner)
    uid = owner["metadata"]["uid"]
    pods = [
        pod
        for pod in client.get(_path(Pod, namespace))["items"]
        if any(reference["uid"] == uid for reference in pod["metadata"].get("ownerReferences", []))
    ]
    if not pods:
        raise Failure(f"{target} has no pods")
    if len(pods) > 1:
        click.echo(f"Found {len(pods)} pods, using pod/{pods[0]['metadata']['name']}", err=True)
    return _resource(pods[0])


def _resource(answer: Any) -> Resource:
    assert isinstance(answer, dict)  # noqa: S101 - for the type checker
    return answer


def _default_container(pod: Resource) -> str:
    names = [container["name"] for container in pod["spec"]["containers"]]
    if len(names) > 1:
        click.echo(f'Defaulted container "{names[0]}" out of: {", ".join(names)}', err=True)
    return str(names[0])
