"""Service Mesh Interface resources that the mesh implements.

<https://github.com/servicemeshinterface/smi-spec>: traffic access v1alpha2, traffic specs v1alpha3, traffic split
v1alpha3.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from .meta import StrictModel, StrictObject


class Subject(StrictModel, frozen=True, kw_only=True):
    """Who a TrafficTarget speaks of. An empty namespace is the TrafficTarget's own.

    `port` restricts a destination to one of its ports; None means all.
    """

    kind: Literal["ServiceAccount"]
    name: str
    namespace: str = ""
    port: int | None = None


class RouteRule(StrictModel, frozen=True, kw_only=True):
    """A route, in the resource's own namespace. Empty `matches` means all of the group's."""

    kind: Literal["HTTPRouteGroup", "TCPRoute"]
    name: str
    matches: list[str] = []


class TrafficTargetSpec(StrictModel, frozen=True, kw_only=True):
    """Spec of a TrafficTarget. Empty `rules` allow everything to the sources."""

    destination: Subject
    sources: list[Subject] = []
    rules: list[RouteRule] = []


class TrafficTarget(StrictObject, frozen=True, kw_only=True):
    """Lets source identities reach a destination identity on given routes."""

    API_VERSION: ClassVar[str] = "access.smi-spec.io/v1alpha2"
    KIND: ClassVar[str] = "TrafficTarget"
    PLURAL: ClassVar[str] = "traffictargets"

    spec: TrafficTargetSpec


class HTTPMatch(StrictModel, frozen=True, kw_only=True):
    """One match of an HTTPRouteGroup; all given parts must hold. `headers` maps a name to a regular expression."""

    name: str
    path_regex: str = ""
    methods: list[str] = []
    headers: dict[str, str] = {}

    @property
    def path_pattern(self) -> str:
        """`path_regex`, empty when it matches any path: published examples write that as "*", which is no regex."""
        return "" if self.path_regex == "*" else self.path_regex


class HTTPRouteGroupSpec(StrictModel, frozen=True, kw_only=True):
    """Spec of an HTTPRouteGroup."""

    matches: list[HTTPMatch] = []


class HTTPRouteGroup(StrictObject, frozen=True, kw_only=True):
    """Named matches of HTTP requests."""

    API_VERSION: ClassVar[str] = "specs.smi-spec.io/v1alpha3"
    KIND: ClassVar[str] = "HTTPRouteGroup"
    PLURAL: ClassVar[str] = "httproutegroups"

    spec: HTTPRouteGroupSpec


class TCPRouteSpec(StrictModel, frozen=True, kw_only=True):
    """Spec of a TCPRoute, which has nothing to say."""


class TCPRoute(StrictObject, frozen=True, kw_only=True):
    """Stands for TCP traffic in the rules of a TrafficTarget."""

    API_VERSION: ClassVar[str] = "specs.smi-spec.io/v1alpha3"
    KIND: ClassVar[str] = "TCPRoute"
    PLURAL: ClassVar[str] = "tcproutes"

    spec: TCPRouteSpec = TCPRouteSpec()


class TrafficSplitBackend(StrictModel, frozen=True, kw_only=True):
    """A Service and its share of the sum of weights."""

    service: str
    weight: int


class TrafficSplitMatch(StrictModel, frozen=True, kw_only=True):
    """An HTTPRouteGroup of the TrafficSplit's namespace, with all of its matches."""

    kind: Literal["HTTPRouteGroup"]
    name: str
    api_group: str = ""


class TrafficSplitSpec(StrictModel, frozen=True, kw_only=True):
    """Spec of a TrafficSplit. `service` is the root service that callers dial."""

    service: str
    backends: list[TrafficSplitBackend]
    matches: list[TrafficSplitMatch] = []


class TrafficSplit(StrictObject, frozen=True, kw_only=True):
    """Sends requests for a root service to backends by weight."""

    API_VERSION: ClassVar[str] = "split.smi-spec.io/v1alpha3"
    KIND: ClassVar[str] = "TrafficSplit"
    PLURAL: ClassVar[str] = "trafficsplits"

    spec: TrafficSplitSpec
