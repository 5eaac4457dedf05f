"""Findings of manifests: what reading them says, what the mesh would say of them, and what the rules say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from nginx_mesh.api.core import Namespace
from nginx_mesh.api.loaded import LoadedObject, ManifestError
from nginx_mesh.api.manifest import load
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker
from nginx_mesh.api.settings import CONTROL_PLANE_NAMESPACE
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.api.validate import validate_references
from nginx_mesh.compile.check import check

from . import access, metadata, refusals, routes, traffic
from .rules import BAD_MARK, INEFFECTIVE, INVALID, MISSING, TWICE, UNREADABLE, Finding, Rule
from .world import World, world_of

_CHECKS: Final = (
    metadata.settings,
    metadata.labels_and_annotations,
    refusals.refusals,
    routes.routes,
    access.access,
    traffic.splits,
    traffic.limits,
    traffic.breakers,
)
_ALWAYS_THERE: Final = (ObjectKey(Namespace.KIND, "", CONTROL_PLANE_NAMESPACE),)
_RANK: Final = {"error": 0, "warning": 1, "info": 2}


def lint(files: Iterable[tuple[str, bytes]], namespace: str = "default") -> list[Finding]:
    """What there is to say of manifests (where each came from, and its content) that are to be applied together.

    In the order of the files, and for each object the worst first.
    """
    findings: list[Finding] = []
    given: dict[str, LoadedObject] = {}
    for source, data in files:
        manifest = load(data, source, namespace=namespace)
        findings += map(_refused, manifest.errors)
        for loaded in manifest.objects:
            name = str(loaded.object.key)
            first = given.setdefault(name, loaded)
            if first is not loaded:
                message = f"the same object is in {first.source}"
                findings.append(Finding(TWICE, name, "metadata.name", message, loaded.file, loaded.document))
    objects = list(given.values())
    world = world_of(objects)
    for finding in _judged(world, objects):
        loaded = given[finding.object]
        findings.append(replace(finding, file=loaded.file, document=loaded.document))
    files_in_order = {file: number for number, file in enumerate(dict.fromkeys(one.file for one in findings))}
    findings.sort(key=lambda one: (files_in_order[one.file], one.document, one.object, _RANK[one.rule.severity]))
    return findings


def _judged(world: World, objects: list[LoadedObject]) -> Iterator[Finding]:
    for error in validate_references(objects, lambda key: key in _ALWAYS_THERE):
        yield Finding(MISSING, error.object, error.field, error.reason)
    said: dict[str, list[str]] = {}
    refused: set[str] = set()
    for judge in _CHECKS:
        for finding in judge(world):
            said.setdefault(finding.object, []).append(finding.field)
            if finding.rule.severity == "error":
                refused.add(finding.object)
            yield finding
    # What the mesh will warn of. A rule that spoke of the same field, or of a part of it, says more.
    for obj in world.objects:
        unknown = isinstance(obj, TrafficSplit | CircuitBreaker) and not world.has_services
        if unknown or str(obj.key) in refused:
            continue
        for warning in check(world.catalog, obj.key):
            if not any(_overlap(field, warning.field) for field in said.get(str(obj.key), ())):
                yield INEFFECTIVE.at(obj.key, warning.field, warning.reason)


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _refused(error: ManifestError) -> Finding:
    return Finding(_rule_of(error), error.object, error.field, error.reason, error.file, error.document)


def _rule_of(error: ManifestError) -> Rule:
    if not error.object:
        return UNREADABLE
    return BAD_MARK if "annotations[" in error.field or "labels[" in error.field else INVALID
