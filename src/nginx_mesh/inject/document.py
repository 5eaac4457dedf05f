"""Documents of a manifest: pods, what makes pods, and lists of them. Everything else passes unchanged."""

from __future__ import annotations

from typing import Any, NamedTuple

from nginx_mesh.api.errors import FieldError, located
from nginx_mesh.api.kinds import CLUSTER_KINDS, decode
from nginx_mesh.api.workloadkinds import POD_OWNERS

from .pod import Resource, inject_pod
from .settings import InjectSettings


class Outcome(NamedTuple):
    """What became of one object, "Kind namespace/name". Without a sidecar, `reason` says why it has none."""

    object: str
    injected: bool
    reason: str


class DocumentResult(NamedTuple):
    """A document after injection, and the outcome of each object in it that is or makes pods."""

    document: Any
    outcomes: list[Outcome]


def inject_document(document: Any, settings: InjectSettings) -> DocumentResult:
    """Give the pods of a document their sidecars, whatever the auto-inject labels say.

    Raises FieldError for what is no object, or what its author has to change first; the field says where, from the
    document's root.
    """
    if not isinstance(document, dict):
        raise FieldError("", "is not an object: it must be a mapping with apiVersion and kind")
    kind = document.get("kind")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(document.get("items"), list):
        return _list(document, kind.removesuffix("List"), settings)
    if kind not in ("Pod", "CronJob", *POD_OWNERS):
        return DocumentResult(document, [])
    key = decode(document, CLUSTER_KINDS).key
    if kind == "CronJob":
        return _cron_job(document, str(key), key.namespace, settings)
    if kind == "Pod":
        result = inject_pod(document, {}, settings, explicit=True)
        return DocumentResult(result.pod, [Outcome(str(key), result.injected, result.reason)])
    template = document["spec"]["template"]
    with located("spec.template"):
        result = inject_pod(template, {}, settings, namespace=key.namespace, owner=(kind, key.name), explicit=True)
    injected = {**document, "spec": {**document["spec"], "template": result.pod}}
    return DocumentResult(injected, [Outcome(str(key), result.injected, result.reason)])


def _cron_job(document: Resource, name: str, namespace: str, settings: InjectSettings) -> DocumentResult:
    """The owners of its pods are the Jobs that it makes, whose names nobody knows yet."""
    job = document["spec"]["jobTemplate"]
    with located("spec.jobTemplate.spec.template"):
        result = inject_pod(job["spec"]["template"], {}, settings, namespace=namespace, explicit=True)
    injected = {**job, "spec": {**job["spec"], "template": result.pod}}
    document = {**document, "spec": {**document["spec"], "jobTemplate": injected}}
    return DocumentResult(document, [Outcome(name, result.injected, result.reason)])


def _list(document: Resource, kind: str, settings: InjectSettings) -> DocumentResult:
    items, outcomes = [], []
    for index, item in enumerate(document["items"]):
        # Items of a list of one kind need not say what they are.
        implied = {"apiVersion": document.get("apiVersion"), "kind": kind} if kind else {}
        said = {**implied, **item} if isinstance(item, dict) else item
        with located(f"items[{index}]"):
            result = inject_document(said, settings)
        items.append({name: value for name, value in result.document.items() if name in item or name not in implied})
        outcomes += result.outcomes
    return DocumentResult({**document, "items": items}, outcomes)
