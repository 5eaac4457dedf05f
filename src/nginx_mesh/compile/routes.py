"""Compiles the routes that policies name to the rules that sidecars apply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import RateLimitRule
from nginx_mesh.api.pcre2 import pattern_fault
from nginx_mesh.api.smi import HTTPMatch, HTTPRouteGroup, RouteRule, TCPRoute
from nginx_mesh.catalog.messages import no_such_match, no_such_object
from nginx_mesh.catalog.policies import Policies
from nginx_mesh.protocol.state import PathRule

_ANY_METHOD = "*"


@dataclass(slots=True)
class Routes:
    """The matches of HTTP in their order (`http`), and whether TCP matches (`tcp`).

    Routes that cannot be resolved are left out; `problems` has (field of the policy, reason) for each of them.
    """

    http: list[PathRule] = field(default_factory=list)
    tcp: bool = False
    problems: list[tuple[str, str]] = field(default_factory=list)


def resolve(
    policies: Policies, namespace: str, rules: Sequence[RouteRule | RateLimitRule], path: str = "spec.rules"
) -> Routes:
    """The routes that a policy of `namespace` names in its field `path`."""
    routes = Routes()
    for index, rule in enumerate(rules):
        where = f"{path}[{index}]"
        route = policies.route(ObjectKey(rule.kind, namespace, rule.name))
        if isinstance(route, TCPRoute):
            routes.tcp = True
        elif isinstance(route, HTTPRouteGroup):
            for problem in _resolve_group(route, rule.matches, routes.http):
                routes.problems.append((f"{where}.matches", problem))
        else:
            routes.problems.append((f"{where}.name", no_such_object(ObjectKey(rule.kind, namespace, rule.name))))
    return routes


def _resolve_group(group: HTTPRouteGroup, names: Sequence[str], rules: list[PathRule]) -> Iterator[str]:
    """Append the matches of these names, or all when there are no names, to `rules`. Yields their problems."""
    matches = {match.name: match for match in group.spec.matches}
    for name in names:
        if name not in matches:
            yield no_such_match(group.metadata.name, name)
    for match in [matches[name] for name in names if name in matches] if names else group.spec.matches:
        rule = _rule(match)
        if rule is None:
            yield f'match "{match.name}" of HTTPRouteGroup {group.metadata.name} names a header twice'
            continue
        rules.append(rule)
        for pattern in (rule.path_regex, *rule.headers.values()):
            fault = pattern_fault(pattern)
            if fault is not None:
                yield f'match "{match.name}" of HTTPRouteGroup {group.metadata.name} matches nothing: {fault}'


def _rule(match: HTTPMatch) -> PathRule | None:
    """The rule of a match, None when it names a header twice."""
    headers = {name.lower(): pattern for name, pattern in match.headers.items()}
    if len(headers) != len(match.headers):
        return None
    return PathRule(
        path_regex=match.path_pattern,
        methods=[] if _ANY_METHOD in match.methods else match.methods,
        headers=headers,
    )
