"""Rules for routes: matches that are superfluous, that never match, or that match more than they seem to."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import RateLimit
from nginx_mesh.api.smi import HTTPMatch, HTTPRouteGroup, TCPRoute, TrafficTarget
from nginx_mesh.catalog.policies import routes_of

from .describedmesh import DescribedMesh
from .rules import NEVER_MATCHES, SHADOWED, UNANCHORED, UNUSED_ROUTE, Findings

_ANY = "*"
# "^" and characters that match themselves, then the rest of the pattern.
_PREFIX = re.compile(r"\^((?:[A-Za-z0-9/_~-]|\\\.)*)(.*)", re.DOTALL)
# A pattern whose first character no path has: every path begins with "/".
_NOT_A_PATH = re.compile(r"\^[A-Za-z0-9_~-]")
_QUANTIFIERS = ("?", "*", "{")


def routes(mesh: DescribedMesh) -> Findings:
    """Findings about HTTPRouteGroups and TCPRoutes."""
    used = {route for obj in mesh.objects for route in routes_of(obj)}
    for group in mesh.of_kind(HTTPRouteGroup):
        if group.key not in used:
            message = "no TrafficTarget, RateLimit or TrafficSplit in these manifests refers to it"
            yield UNUSED_ROUTE.at(group.key, "", message)
        yield from _matches(mesh, group)
    for route in mesh.of_kind(TCPRoute):
        if route.key not in used:
            yield UNUSED_ROUTE.at(route.key, "", "no TrafficTarget in these manifests refers to it")


def covers(earlier: HTTPMatch, later: HTTPMatch) -> bool:
    """Whether every request that `later` matches is certain to match `earlier` as well."""
    headers = {name.lower(): pattern for name, pattern in later.headers.items()}
    return (
        _covers_path(earlier.path_pattern, later.path_pattern)
        and _covers_methods(earlier.methods, later.methods)
        and all(headers.get(name.lower()) == pattern for name, pattern in earlier.headers.items())
    )


def _covers_path(earlier: str, later: str) -> bool:
    if earlier in ("", later, "^", "^/", "/", ".*", "^.*", "^/.*"):
        return True
    wide, narrow = _PREFIX.fullmatch(earlier), _PREFIX.fullmatch(later)
    if wide is None or narrow is None or wide[2] not in ("", ".*"):
        return False
    # Alternatives and inline options may match other beginnings. A quantifier makes the last character optional.
    if "|" in narrow[2] or "(?" in narrow[2] or "\n" in later:
        return False
    literal = narrow[1]
    if narrow[2].startswith(_QUANTIFIERS):
        literal = literal[:-2] if literal.endswith("\\.") else literal[:-1]
    return literal.startswith(wide[1])


def _covers_methods(earlier: Sequence[str], later: Sequence[str]) -> bool:
    if not earlier or _ANY in earlier:
        return True
    return bool(later) and _ANY not in later and set(later) <= set(earlier)


def _matches(mesh: DescribedMesh, group: HTTPRouteGroup) -> Findings:
    selections = _selections(mesh, group.key)
    matches = group.spec.matches
    for index, match in enumerate(matches):
        where = f"spec.matches[{index}]"
        # The later match is not superfluous for a policy that names it without the earlier one.
        earlier = next(
            (
                other
                for other in matches[:index]
                if covers(other, match) and not any(match.name in s and other.name not in s for s in selections)
            ),
            None,
        )
        if earlier is not None:
            message = f'"{match.name}" matches nothing that "{earlier.name}" before it does not match'
            yield SHADOWED.at(group.key, where, message)
        yield from _match(group.key, where, match)


def _match(key: ObjectKey, where: str, match: HTTPMatch) -> Findings:
    pattern = match.path_pattern
    field = f"{where}.pathRegex"
    if _NOT_A_PATH.match(pattern) and "|" not in pattern:
        yield NEVER_MATCHES.at(key, field, f'"{pattern}" matches no path, as none begins like that')
    elif pattern.startswith("/") and pattern != "/":
        yield UNANCHORED.at(key, field, f'"{pattern}" also matches in the middle of a path, as in /other{pattern}')
    for index, method in enumerate(match.methods):
        if method != method.upper():
            message = f'"{method}" is not "{method.upper()}": methods are compared as they are written'
            yield NEVER_MATCHES.at(key, f"{where}.methods[{index}]", message)


def _selections(mesh: DescribedMesh, group: ObjectKey) -> list[list[str]]:
    """The names of matches in policies that use only some of a group's matches, one list for each such rule."""
    return [
        rule.matches
        for obj in mesh.objects
        if isinstance(obj, TrafficTarget | RateLimit) and obj.metadata.namespace == group.namespace
        for rule in obj.spec.rules
        if (rule.kind, rule.name) == (group.kind, group.name) and rule.matches
    ]
