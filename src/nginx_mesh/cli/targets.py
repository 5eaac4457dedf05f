"""Which objects the arguments of a command mean."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from nginx_mesh.api import registry
from nginx_mesh.api.core import Pod
from nginx_mesh.api.meta import Object

from .client import Client
from .failure import Failure
from .table import Resource


def kind_of(title: str) -> type[Object]:
    """The kind with that resource name, such as pods, po or deployment.apps."""
    kind = registry.find(title)
    if kind is None:
        raise Failure(f'the server doesn\'t have a resource type "{title}"')
    return kind


def named(what: tuple[str, ...]) -> list[tuple[type[Object], str]]:
    """`KIND NAME...` or `KIND/NAME...` as kinds and names."""
    if any("/" in part for part in what):
        if not all(part.count("/") == 1 for part in what):
            raise Failure("there is no need to specify a resource type as a separate argument when passing KIND/NAME")
        pairs = [part.split("/") for part in what]
        return [(kind_of(title), name) for title, name in pairs]
    if len(what) == 1:
        raise Failure("resource(s) were provided, but no name was specified")
    return [(kind_of(what[0]), name) for name in what[1:]]


def all_of(client: Client, what: tuple[str, ...], namespace: str) -> list[tuple[type[Object], str]]:
    """Every object of the kinds, of one namespace."""
    return [
        (kind, item["metadata"]["name"])
        for kind in map(kind_of, what)
        for item in client.get(path_of(kind, namespace if kind.NAMESPACED else ""))["items"]
    ]


def path_of(kind: type[Object], namespace: str, name: str = "") -> str:
    """Where the API has objects of a kind, or one of them; an empty namespace means all."""
    parts = ["namespaces", namespace, kind.PLURAL] if namespace else [kind.PLURAL]
    return "/".join([registry.path(kind), *(quote(part, safe="") for part in [*parts, *([name] if name else [])])])


def pod_of(client: Client, target: str, namespace: str) -> Resource:
    """A pod by its name, or one of the pods of a workload by KIND/NAME."""
    if "/" not in target:
        return _resource(client.get(path_of(Pod, namespace, target)))
    ((kind, name),) = named((target,))
    owner = client.get(path_of(kind, namespace, name))
    if kind.KIND == "Pod":
        return _resource(owner)
    uid = owner["metadata"]["uid"]
    pods = [
        pod
        for pod in client.get(path_of(Pod, namespace))["items"]
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
    """The first container of a pod; says so when there are others."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    if len(names) > 1:
        click.echo(f'Defaulted container "{names[0]}" out of: {", ".join(names)}', err=True)
    return str(names[0])
