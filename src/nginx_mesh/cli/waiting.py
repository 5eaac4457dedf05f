"""Waiting for a local mesh, and saying how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from nginx_mesh.api.core import Pod

from .client import ApiError, Client
from .failure import Failure
from .table import Resource
from .targets import path_of

_POLL_SECONDS = 0.2
_FAILED_LOG_LINES = 10


def wait_ready(client: Client, timeout: int, only: list[str] | None = None, namespace: str | None = None) -> None:
    """Wait until all pods and workloads are ready, or those named only; fail with the reasons why not."""
    deadline = time.monotonic() + timeout
    query = {"object": ",".join(only) if only else None, "namespace": namespace}
    shown = ""
    with progress() as show:
        while True:
            state = client.get("/mesh/readiness", **query)
            now = f"{state['ready']}/{state['pods']} pods are ready"
            if now != shown and state["pods"]:
                show(now)
                shown = now
            hopeless = [entry for entry in state["waiting"] if entry["hopeless"]]
            if not state["waiting"] or hopeless or time.monotonic() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
    if state["waiting"]:
        after = "" if hopeless else f" after {timeout} s"
        raise Failure("\n".join(_reasons(client, hopeless or state["waiting"], after)))


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
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
    path = path_of(Pod, namespace, pod) + "/log"
    try:
        written = b"".join(client.stream(path, container=container, tailLines=_FAILED_LOG_LINES))
    except ApiError:
        return []
    return written.decode(errors="replace").splitlines()


def wait_gone(client: Client, path: str, uid: str) -> None:
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
