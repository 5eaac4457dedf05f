"""Waiting until the pods of a local mesh are ready, or objects are gone."""

from __future__ import annotations

import time
from collections.abc import Iterator

from nginx_mesh.api.pods import Pod
from nginx_mesh.cli.errors import ApiError, Failure
from nginx_mesh.cli.progress import progress
from nginx_mesh.cli.table import Resource
from nginx_mesh.cli.unix_http import UnixHttpClient

from .references import object_path

_POLL_SECONDS = 0.2
_FAILED_LOG_LINES = 10


def wait_ready(api: UnixHttpClient, timeout: int, only: list[str] | None = None, namespace: str | None = None) -> None:
    """Wait until pods and workloads are ready: all, or `only` those, KIND/NAME each, of a namespace.

    Raises Failure with the reasons when they are not after `timeout` seconds, or never will be.
    """
    deadline = time.monotonic() + timeout
    query = {"object": ",".join(only) if only else None, "namespace": namespace}
    shown = ""
    with progress() as show:
        while True:
            state = api.get("/mesh/readiness", **query)
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
        raise Failure("\n".join(_reasons(api, hopeless or state["waiting"], after)))


def wait_gone(api: UnixHttpClient, path: str, uid: str) -> None:
    """Wait until the object with that uid is gone, even if another one has its name by then."""
    while True:
        try:
            if api.get(path)["metadata"]["uid"] != uid:
                return
        except ApiError as error:
            if error.reason == "NotFound":
                return
            raise
        time.sleep(_POLL_SECONDS)


def _reasons(api: UnixHttpClient, waiting: list[Resource], after: str) -> Iterator[str]:
    yield f"{len(waiting)} not ready{after}:"
    for entry in waiting:
        yield f"  {entry['object']} in namespace {entry['namespace']}: {entry['reason']}"
        if entry.get("container"):
            lines = _last_lines(api, entry["namespace"], entry["object"].partition("/")[2], entry["container"])
            if lines:
                yield f"    container {entry['container']} wrote last:"
                yield from (f"      {line}" for line in lines)


def _last_lines(api: UnixHttpClient, namespace: str, pod: str, container: str) -> list[str]:
    path = object_path(Pod, namespace, pod) + "/log"
    try:
        written = b"".join(api.stream(path, container=container, tailLines=_FAILED_LOG_LINES))
    except ApiError:
        return []
    return written.decode(errors="replace").splitlines()
