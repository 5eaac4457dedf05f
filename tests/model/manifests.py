"""Manifests as the models read them, and what an HTTPRouteGroup matches. Nothing is indexed, nothing compiled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import unquote

from nginx_mesh.api.meta import Object
from nginx_mesh.api.nsm import RateLimitRule
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import HTTPMatch, HTTPRouteGroup, RouteRule

_Kind = TypeVar("_Kind", bound=Object)

# Applications differ in what they make of these: dots as segments, encoded slashes, backslashes.
_AMBIGUOUS = re.compile(r"/(?:\.|%2e){1,2}(?:[/;]|$)|%2f|%5c|\\", re.IGNORECASE)


class Request(Protocol):
    """What matches look at. Header names are in any case, each there once."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Manifests:
    """The objects of a mesh."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self._objects = list(objects)

    def all(self, kind: type[_Kind]) -> list[_Kind]:
        """Those of a kind."""
        return [obj for obj in self._objects if isinstance(obj, kind)]

    def behind(self, service: Service) -> list[Pod]:
        """The pods that a Service selects, ready or not. Without a selector it selects none."""
        wanted, namespace = service.spec.selector.items(), service.metadata.namespace
        pods = [pod for pod in self.all(Pod) if pod.metadata.namespace == namespace]
        return [pod for pod in pods if wanted and wanted <= pod.metadata.labels.items()]

    def matches(self, namespace: str, rules: Sequence[RouteRule | RateLimitRule]) -> Iterator[HTTPMatch]:
        """Those of the groups that a policy's rules name, of which some may name only some."""
        for rule in rules:
            for group in self.all(HTTPRouteGroup):
                if rule.kind == "HTTPRouteGroup" and named(group) == (namespace, rule.name):
                    yield from (m for m in group.spec.matches if not rule.matches or m.name in rule.matches)


def named(obj: Object) -> tuple[str, str]:
    """Namespace and name."""
    return (obj.metadata.namespace, obj.metadata.name)


def age(obj: Object) -> tuple[object, ...]:
    """By which policies that cannot both count are settled: the oldest does, then the first by name."""
    return (obj.metadata.creation_timestamp, *named(obj))


def account(pod: Pod) -> tuple[str, str]:
    """Whose identity a pod has: namespace and ServiceAccount."""
    return (pod.metadata.namespace, pod.spec.service_account_name or "default")


def addresses(pod: Pod) -> set[str]:
    """Where a pod is."""
    return {address.ip for address in pod.status.pod_ips}


def holds(match: HTTPMatch, request: Request, *, sure: bool) -> bool:
    """Whether all parts of a match hold. `sure`: for every reading of the path; else any reading will do."""
    if match.methods and not {"*", request.method} & set(match.methods):
        return False
    sent = {name.lower(): value for name, value in request.headers.items()}
    for name, pattern in match.headers.items():
        value = sent.get(name.lower())
        if value is None or not re.search(pattern, value):
            return False
    if match.path_regex in ("", "*"):
        return True
    path = request.path.partition("?")[0]
    if _AMBIGUOUS.search(path):
        return not sure
    found = [bool(re.search(match.path_regex, reading)) for reading in _readings(path)]
    return all(found) if sure else any(found)


def _readings(path: str) -> set[str]:
    """What applications may take a path for: decoded, slashes merged, each segment's parameters dropped, or not."""
    decoded = unquote(path)
    readings = {decoded, re.sub(r";[^/]*", "", decoded)}
    return readings | {re.sub("/+", "/", reading) for reading in readings}
