"""Reading, applying, changing and deleting the objects of a local mesh, for its API."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from nginx_mesh.admission import StoredObjects, review_changes
from nginx_mesh.api import discovery, kinds
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.loaded import LoadedObject
from nginx_mesh.api.manifest import load_all
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource, key_of, namespace_labels
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.status import StatusError
from nginx_mesh.api.validate import validate, validate_references
from nginx_mesh.control.settings import changed_config, first_config, settings_in_force
from nginx_mesh.inject import InjectSettings
from nginx_mesh.local.net.networks import DEFAULT, PodNetworks

from . import lifecycle
from .admission import Admission
from .events import EventLog
from .store import Outcome, Store, Transaction

# Kinds that other kinds refer to are stored first.
_ORDER = ("Namespace", "ServiceAccount", "ConfigMap", "Secret", "Service")

Files = Iterable[tuple[str, bytes]]
"""Manifests: the source of each, and its content."""


class ApplyResult(NamedTuple):
    """The outcome for one applied object. Each of the `warnings` names the object and the field."""

    key: ObjectKey
    outcome: Outcome
    warnings: tuple[str, ...] = ()


class Objects:
    """Checks and completes objects before they are stored. `install_settings` are those the mesh was made with.

    Every method may raise StatusError, or StoreError when the disk cannot be written; then nothing has changed.
    """

    def __init__(
        self,
        store: Store,
        events: EventLog,
        install_settings: MeshSettings,
        clock: Callable[[], float],
        networks: PodNetworks = DEFAULT,
    ) -> None:
        self._networks = networks
        self._store = store
        self._events = events
        self._install_settings = install_settings
        self._clock = clock
        self._random = random.SystemRandom()
        self._seed()

    def settings(self) -> MeshSettings:
        """The settings in force: those the mesh was made with, overlaid by the MeshConfig."""
        return settings_in_force(self._install_settings, self._store)

    def admission(self, tx: Transaction) -> Admission:
        """The admission of objects in a transaction."""
        return Admission(tx, InjectSettings(), self._random, self._networks)

    def get(self, key: ObjectKey) -> Resource:
        """One object."""
        resource = self._store.get(key)
        if resource is None:
            raise StatusError("NotFound", f'{_plural(key)} "{key.name}" not found')
        return resource

    def of_kind(self, kind: str, namespace: str | None) -> list[Resource]:
        """The objects of a kind, of one namespace or of all."""
        return self._events.list(namespace) if kind == "Event" else self._store.list(kind, namespace)

    async def apply(self, files: Files, namespace: str) -> list[ApplyResult]:
        """Create or replace all objects of the manifests, or none when it raises StatusError."""
        parsed = await asyncio.to_thread(_parse, files, namespace)
        unmet = validate_references(
            parsed,
            lambda key: self._store.get(key) is not None,
            namespace_labels=lambda name: namespace_labels(self._store, name),
        )
        if unmet:
            raise StatusError("Invalid", str(unmet[0]), map(str, unmet))
        return self._put([(loaded.raw, _error_text(loaded)) for loaded in parsed])

    def patch(self, key: ObjectKey, patch: Resource) -> Resource:
        """Change an object by a JSON merge patch (RFC 7386)."""
        merged = merge_patch(self.get(key), patch)
        try:
            obj = kinds.decode(merged)
            errors = validate(obj)
        except FieldError as error:
            errors = [error]
        else:
            if obj.key != key:
                raise StatusError("Invalid", f"{key}: kind, name and namespace may not change")
        if errors:
            raise StatusError("Invalid", f"{key}: {errors[0]}", [f"{key}: {error}" for error in errors])
        self._put([(merged, lambda error: f"{key}: {error}")])
        return self.get(key)

    def configure(self, changes: Resource) -> None:
        """Change the mesh's settings that may change while it runs."""
        self._put([(changed_config(self._install_settings, self.settings(), changes), str)])

    async def delete_all(
        self, files: Files, namespace: str, grace_seconds: int | None
    ) -> list[tuple[ObjectKey, str | None]]:
        """Begin to delete all objects of the manifests; returns their uids, None for those that do not exist."""
        keys = [loaded.object.key for loaded in await asyncio.to_thread(_parse, files, namespace)]
        return self._delete(keys, grace_seconds)

    def delete(self, key: ObjectKey, grace_seconds: int | None) -> Resource:
        """Begin to delete an object, which is returned."""
        resource = self.get(key)
        self._delete([key], grace_seconds)
        return resource

    def _delete(self, keys: Iterable[ObjectKey], grace_seconds: int | None) -> list[tuple[ObjectKey, str | None]]:
        found: list[tuple[ObjectKey, str | None]] = []
        with self._store.transaction() as tx:
            for key in keys:
                if key.kind == "Namespace" and key.name in lifecycle.PERMANENT_NAMESPACES:
                    raise StatusError("Forbidden", f'namespaces "{key.name}" is forbidden: it may not be deleted')
                resource = tx.get(key)
                found.append((key, None if resource is None else resource["metadata"]["uid"]))
                lifecycle.delete(tx, key, self._clock(), grace_seconds)
            lifecycle.settle(tx, self._clock())
        return found

    def _put(self, resources: list[tuple[Resource, Callable[[FieldError], str]]]) -> list[ApplyResult]:
        """Store all objects, or none. Each comes with a function that makes the text of an error in it."""
        errors: list[str] = []
        results: dict[int, ApplyResult] = {}
        warnings: list[tuple[ObjectKey, FieldError]] = []
        with self._store.transaction() as tx:
            admission = self.admission(tx)
            for number in sorted(range(len(resources)), key=lambda n: _rank(resources[n][0])):
                resource, text = resources[number]
                try:
                    results[number] = ApplyResult(key_of(resource), tx.put(admission.admit(resource)))
                except FieldError as error:
                    errors.append(text(error))
            # With all of them in the transaction, so that none is reviewed against an object that another replaces.
            changed = {
                number: (resources[number][0], self._store.get(key))
                for number, (key, outcome, _) in sorted(results.items())
                if outcome != "unchanged"
            }
            for number, review in review_changes(changed, StoredObjects(tx)).items():
                (key, outcome, _), (_, text) = results[number], resources[number]
                errors += map(text, review.errors)
                warnings += [(key, warning) for warning in review.warnings]
                results[number] = ApplyResult(key, outcome, tuple(map(text, review.warnings)))
            if errors:
                raise StatusError("Invalid", errors[0], errors)
            lifecycle.settle(tx, self._clock())
        for key, warning in warnings:
            self._events.warn_once(key, "UnknownReference", str(warning), or_said_as=f"Upsert{key.kind}Failed")
        return [results[number] for number in sorted(results)]

    def _seed(self) -> None:
        """Store the objects that every mesh has from the start."""
        with self._store.transaction() as tx:
            for name in lifecycle.PERMANENT_NAMESPACES:
                namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                if tx.get(key_of(namespace)) is None:
                    tx.put({**namespace, "status": {"phase": "Active"}})
            if tx.fact("seeded") is None:
                for resource in first_config(self._install_settings):
                    tx.put(resource)
                tx.set_fact("seeded", "1")
            lifecycle.settle(tx, self._clock())


def merge_patch(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _rank(resource: Resource) -> int:
    return _ORDER.index(resource["kind"]) if resource["kind"] in _ORDER else len(_ORDER)


def _plural(key: ObjectKey) -> str:
    """The name of a kind in errors, such as `deployments.apps` or `pods`."""
    kind = discovery.by_kind(key.kind)
    return discovery.title(kind).replace(key.kind.lower(), kind.PLURAL, 1)


def _parse(files: Files, namespace: str) -> list[LoadedObject]:
    """The objects of manifests. Raises StatusError for an invalid object, and when an object comes twice."""
    manifest = load_all(files, namespace=namespace)
    if manifest.errors:
        errors = list(map(str, manifest.errors))
        raise StatusError("Invalid", errors[0], errors)
    return manifest.objects


def _error_text(loaded: LoadedObject) -> Callable[[FieldError], str]:
    return lambda error: str(loaded.error(error))
