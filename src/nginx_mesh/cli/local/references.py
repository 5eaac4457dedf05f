"""Reading arguments that refer to Kubernetes objects, as kubectl reads them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from nginx_mesh.api import discovery
from nginx_mesh.api.meta import Object
from nginx_mesh.api.pods import Pod
from nginx_mesh.cli.errors import Failure
from nginx_mesh.cli.table import Resource
from nginx_mesh.cli.unix_http import UnixHttpClient


def find_kind(title: str) -> type[Object]:
    """Return the kind with that resource name, such as pods, po or deployment.apps. Raises Failure."""
    kind = discovery.find(title)
    if kind is None:
        raise Failure(f'the server doesn\'t have a resource type "{title}"')
    return kind


def parse_references(what: tuple[str, ...]) -> list[tuple[type[Object], str]]:
    """Read `KIND NAME...` or `KIND/NAME...` as kinds and names. Raises Failure."""
    if any("/" in part for part in what):
        if not all(part.count("/") == 1 for part in what):
            raise Failure("there is no need to specify a resource type as a separate argument when passing KIND/NAME")
        pairs = [part.split("/") for part in what]
        return [(find_kind(title), name) for title, name in pairs]
    if len(what) == 1:
        raise Failure("resource(s) were provided, but no name was specified")
    return [(find_kind(what[0]), name) for name in what[1:]]


def list_references(api: UnixHttpClient, what: tuple[str, ...], namespace: str) -> list[tuple[type[Object], str]]:
    """Return the kind and name of every object of the kinds in one namespace."""
    return [
        (kind, item["metadata"]["name"])
        for kind in map(find_kind, what)
        for item in api.get(object_path(kind, namespace if kind.NAMESPACED else ""))["items"]
    ]


def object_path(kind: type[Object], namespace: str, name: str = "") -> str:
    """Return where the API has objects of a kind, or the one with that name; an empty namespace means all of them."""
    parts = ["namespaces", namespace, kind.PLURAL] if namespace else [kind.PLURAL]
    return "/".join([discovery.path(kind), *(quote(part, safe="") for part in [*parts, *([name] if name else [])])])


def find_pod(api: UnixHttpClient, target: str, namespace: str) -> Resource:
    """Return a pod by its name, or one of the pods of a workload by KIND/NAME. Raises Failure."""
    if "/" not in target:
        return _resource(api.get(object_path(Pod, namespace, target)))
    ((kind, name),) = parse_references((target,))
    owner = api.get(object_path(kind, namespace, name))
    if kind.KIND == "Pod":
        return _resource(owner)
    uid = owner["metadata"]["uid"]
    pods = [
        pod
        for pod in api.get(object_path(Pod, namespace))["items"]
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


def default_container(pod: Resource) -> str:
    """Return the name of a pod's first container, and tell the user so when there are others."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    if len(names) > 1:
        click.echo(f'Defaulted container "{names[0]}" out of: {", ".join(names)}', err=True)
    return str(names[0])
