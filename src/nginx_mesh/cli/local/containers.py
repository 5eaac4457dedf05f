"""`nginx-meshctl local`: the logs of containers, and commands in them."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from nginx_mesh.api.pods import Pod
from nginx_mesh.cli.unix_http import UnixHttpClient

from .mesh import LocalMesh
from .options import container_option, name_option, namespace_option, on_api
from .references import default_container, find_pod, object_path


@click.command()
@on_api
@click.argument("target", metavar="POD|KIND/NAME")
@namespace_option
@container_option
@click.option("-f", "--follow", is_flag=True, help="Keep printing what the container writes.")
@click.option("--tail", type=click.IntRange(-1), default=-1, help="Only the last lines; -1 for all.")
def logs(api: UnixHttpClient, target: str, namespace: str, container: str | None, follow: bool, tail: int) -> None:
    """Print what a container wrote.

    \b
    Examples:
      nginx-meshctl local logs web-0
      nginx-meshctl local logs -f deploy/web -c nginx-mesh-sidecar
    """
    pod = find_pod(api, target, namespace)
    query = {
        "container": container or default_container(pod),
        "follow": "true" if follow else None,
        "tailLines": tail if tail >= 0 else None,
    }
    try:
        for chunk in api.stream(object_path(Pod, namespace, pod["metadata"]["name"]) + "/log", **query):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        sys.exit(130)


@click.command("exec", context_settings={"ignore_unknown_options": False})
@name_option
@click.argument("target", metavar="POD|KIND/NAME")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG...]")
@namespace_option
@container_option
@click.option("-i", "--stdin", is_flag=True, help="Pass stdin on to the command.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
def exec_(
    mesh: LocalMesh,
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

    api = mesh.api()
    if tty and not (stdin and sys.stdin.isatty()):
        click.echo("Unable to use a TTY - input is not a terminal", err=True)
        tty = False
    pod = find_pod(api, target, namespace)
    request = {
        "namespace": namespace,
        "pod": pod["metadata"]["name"],
        "container": container or default_container(pod),
        "command": list(command),
    }
    sys.exit(run(mesh.exec_socket, request, stdin=stdin, tty=tty))
