"""All findings about manifests: errors in reading them, warnings that the mesh would give, and broken rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from nginx_mesh.api.cluster import Namespace
from nginx_mesh.api.loaded import DuplicateError, LoadedObject, ManifestError
from nginx_mesh.api.manifest import load_all
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker
from nginx_mesh.api.settings import CONTROL_PLANE_NAMESPACE
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.api.validate import validate_references
from nginx_mesh.compile.check import check

from .access import traffic_targets
from .admission import admission_reviews
from .annotations import labels_and_annotations
from .describedmesh import DescribedMesh, mesh_of
from .meshconfig import mesh_configs
from .routes import routes
from .rules import DUPLICATE, INEFFECTIVE, INVALID, INVALID_METADATA, MISSING_OBJECT, UNREADABLE, Finding, Rule
from .traffic import circuit_breakers, rate_limits, traffic_splits

_CHECKS: Final = (
    mesh_configs,
    labels_and_annotations,
    admission_reviews,
    routes,
    traffic_targets,
    traffic_splits,
    rate_limits,
    circuit_breakers,
)
_EXISTING: Final = (ObjectKey(Namespace.KIND, "", CONTROL_PLANE_NAMESPACE),)
_SEVERITIES: Final = {"error": 0, "warning": 1, "info": 2}


def lint(files: Iterable[tuple[str, bytes]], namespace: str = "default") -> list[Finding]:
    """The findings about manifests, given as (source, data), that are to be applied together.

    They are in the order of the files; those about the same object begin with the most severe one.
    """
    manifest = load_all(files, namespace=namespace)
    findings = [_loading_error(error) for error in manifest.errors]
    by_name = {str(loaded.object.key): loaded for loaded in manifest.objects}
    for finding in _findings(mesh_of(manifest.objects), manifest.objects):
        loaded = by_name[finding.object]
        findings.append(replace(finding, file=loaded.file, document=loaded.document))
    files_in_order = {file: number for number, file in enumerate(dict.fromkeys(one.file for one in findings))}
    findings.sort(key=lambda one: (files_in_order[one.file], one.document, one.object, _SEVERITIES[one.rule.severity]))
    return findings


def _findings(mesh: DescribedMesh, objects: list[LoadedObject]) -> Iterator[Finding]:
    for error in validate_references(objects, lambda key: key in _EXISTING):
        yield Finding(MISSING_OBJECT, error.object, error.field, error.reason)
    reported: dict[str, list[str]] = {}
    refused: set[str] = set()
    for rule_check in _CHECKS:
        for finding in rule_check(mesh):
            reported.setdefault(finding.object, []).append(finding.field)
            if finding.rule.severity == "error":
                refused.add(finding.object)
            yield finding
    # The mesh's own warnings, unless a rule, which tells more, has reported the same field or a part of it.
    for obj in mesh.objects:
        may_be_elsewhere = isinstance(obj, TrafficSplit | CircuitBreaker) and not mesh.has_services
        if may_be_elsewhere or str(obj.key) in refused:
            continue
        for warning in check(mesh.catalog, obj.key):
            if not any(_overlap(field, warning.field) for field in reported.get(str(obj.key), ())):
                yield INEFFECTIVE.at(obj.key, warning.field, warning.reason)


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _loading_error(error: ManifestError) -> Finding:
    return Finding(_rule_of(error), error.object, error.field, error.reason, error.file, error.document)


def _rule_of(error: ManifestError) -> Rule:
    if isinstance(error, DuplicateError):
        return DUPLICATE
    if not error.object:
        return UNREADABLE
    return INVALID_METADATA if "annotations[" in error.field or "labels[" in error.field else INVALID
