"""Injects documents of a manifest: pods, workloads, and lists of them. All other documents pass unchanged."""

from __future__ import annotations

from typing import Any, NamedTuple

from nginx_mesh.api.errors import FieldError, located
from nginx_mesh.api.kinds import CLUSTER_KINDS, decode
from nginx_mesh.api.listing import with_implied_kind
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.workloadkinds import POD_OWNERS

from .pod import inject_pod
from .settings import InjectSettings

_IMPLIED = ("apiVersion", "kind")


class Outcome(NamedTuple):
    """The outcome for one object ("Kind namespace/name"). `reason` says why it has no sidecar."""

    object: str
    injected: bool
    reason: str


class DocumentResult(NamedTuple):
    """A document after injection, and the outcome for each pod and workload in it."""

    document: Any
    outcomes: list[Outcome]


def inject_document(document: Any, settings: InjectSettings) -> DocumentResult:
    """Add sidecars to the pods of a document, whatever its auto-inject labels say.

    Raises FieldError for a document that is no object, or that its author has to change first. The error's field is a
    path from the root of the document.
    """
    if not isinstance(document, dict):
        raise FieldError("", "is not an object: it must be a mapping with apiVersion and kind")
    kind = document.get("kind")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(document.get("items"), list):
        return _list(document, settings)
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
    """Inject a CronJob. Its pods belong to Jobs that do not exist yet, so the owner's name is unknown."""
    job = document["spec"]["jobTemplate"]
    with located("spec.jobTemplate.spec.template"):
        result = inject_pod(job["spec"]["template"], {}, settings, namespace=namespace, explicit=True)
    injected = {**job, "spec": {**job["spec"], "template": result.pod}}
    document = {**document, "spec": {**document["spec"], "jobTemplate": injected}}
    return DocumentResult(document, [Outcome(name, result.injected, result.reason)])


def _list(document: Resource, settings: InjectSettings) -> DocumentResult:
    items, outcomes = [], []
    for index, item in enumerate(document["items"]):
        complete = with_implied_kind(item, document) if isinstance(item, dict) else item
        with located(f"items[{index}]"):
            result = inject_document(complete, settings)
        # An item that omits its apiVersion and kind still does so afterwards.
        items.append({name: value for name, value in result.document.items() if name in item or name not in _IMPLIED})
        outcomes += result.outcomes
    return DocumentResult({**document, "items": items}, outcomes)
