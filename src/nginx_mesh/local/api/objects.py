"""The objects of a local mesh as its API offers them: read, applied, changed, deleted; refused for a reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from nginx_mesh.admission import POLICY_KINDS, StoredObjects, review_resource
from nginx_mesh.api import kinds, registry
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
from .store import Store, Transaction

# What others refer to comes first.
_ORDER = ("Namespace", "ServiceAccount", "ConfigMap", "Secret", "Service")

Files = Iterable[tuple[str, bytes]]
"""Manifests: where each came from, and its content."""


class Outcome(NamedTuple):
    """What became of an applied object: created, configured or unchanged. `warnings` name it, and what to look at."""

    key: ObjectKey
    what: str
    warnings: tuple[str, ...] = ()


class Objects:
    """The store behind its rules. `install_settings` are those the mesh was made with. Every method may raise
    StatusError, and then nothing has changed; StoreError when the disk does not take a change.
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
        """The mesh's settings: those it was made with, overlaid by the MeshConfig."""
        return settings_in_force(self._install_settings, self._store)

    def admission(self, tx: Transaction) -> Admission:
        """Admission within a transaction."""
        return Admission(tx, InjectSettings(), self._random, self._networks)

    def get(self, key: ObjectKey) -> Resource:
        """One object."""
        resource = self._store.get(key)
        if resource is None:
            raise StatusError("NotFound", f'{_plural(key)} "{key.name}" not found')
        return resource

    def of_kind(self, kind: str, namespace: str | None) -> list[Resource]:
        """All objects of a kind, of one namespace or all."""
        return self._events.list(namespace) if kind == "Event" else self._store.list(kind, namespace)

    async def apply(self, files: Files, namespace: str) -> list[Outcome]:
        """Create or replace all objects of the manifests or, raising StatusError, none; what became of each."""
        parsed = await asyncio.to_thread(_parse, files, namespace)
        unmet = validate_references(
            parsed,
            lambda key: self._store.get(key) is not None,
            namespace_labels=lambda name: namespace_labels(self._store, name),
        )
        if unmet:
            raise StatusError("Invalid", str(unmet[0]), map(str, unmet))
        return self._put([(loaded.raw, _wording(loaded)) for loaded in parsed])

    def patch(self, key: ObjectKey, patch: Resource) -> Resource:
        """Change an object by a JSON merge patch (RFC 7386)."""
        merged = merge_patch(self.get(key), patch)
        try:
            obj = kinds.decode(merged)
            faults = validate(obj)
        except FieldError as error:
            faults = [error]
        else:
            if obj.key != key:
                raise StatusError("Invalid", f"{key}: kind, name and namespace may not change")
        if faults:
            raise StatusError("Invalid", f"{key}: {faults[0]}", [f"{key}: {fault}" for fault in faults])
        self._put([(merged, lambda error: f"{key}: {error}")])
        return self.get(key)

    def configure(self, changes: Resource) -> None:
        """Change the mesh's settings that may change while it runs."""
        self._put([(changed_config(self._install_settings, self.settings(), changes), str)])

    async def delete_all(
        self, files: Files, namespace: str, grace_seconds: int | None
    ) -> list[tuple[ObjectKey, str | None]]:
        """Ask for all objects of the manifests to go; their uids, None for those that are not there."""
        keys = [loaded.object.key for loaded in await asyncio.to_thread(_parse, files, namespace)]
        return self._delete(keys, grace_seconds)

    def delete(self, key: ObjectKey, grace_seconds: int | None) -> Resource:
        """Ask for an object to go; the object."""
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

    def _put(self, resources: list[tuple[Resource, Callable[[FieldError], str]]]) -> list[Outcome]:
        """Store objects, all or none; each comes with how to word what is wrong with it."""
        faults: list[str] = []
        outcomes: dict[int, Outcome] = {}
        doubts: list[tuple[ObjectKey, FieldError]] = []
        with self._store.transaction() as tx:
            admission = self.admission(tx)
            for number in sorted(range(len(resources)), key=lambda n: _rank(resources[n][0])):
                resource, worded = resources[number]
                try:
                    outcomes[number] = Outcome(key_of(resource), tx.put(admission.admit(resource)))
                except FieldError as error:
                    faults.append(worded(error))
            # All of them together: none is judged by an object that another is about to replace.
            others = StoredObjects(tx)
            for number, (key, what, _) in sorted(outcomes.items()):
                if key.kind in POLICY_KINDS and what != "unchanged":
                    resource, worded = resources[number]
                    verdict = review_resource(resource, self._store.get(key), others)
                    faults += map(worded, verdict.errors)
                    doubts += [(key, warning) for warning in verdict.warnings]
                    outcomes[number] = Outcome(key, what, tuple(map(worded, verdict.warnings)))
            if faults:
                raise StatusError("Invalid", faults[0], faults)
            lifecycle.settle(tx, self._clock())
        for key, doubt in doubts:
            self._events.warn_once(key, "UnknownReference", str(doubt), or_said_as=f"Upsert{key.kind}Failed")
        return [outcomes[number] for number in sorted(outcomes)]

    def _seed(self) -> None:
        """What every mesh has from the start."""
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
    """`deployments.apps`, `pods`: how errors name a kind."""
    kind = registry.by_kind(key.kind)
    return registry.title(kind).replace(key.kind.lower(), kind.PLURAL, 1)


def _parse(files: Files, namespace: str) -> list[LoadedObject]:
    """The objects of manifests, of which no two may be the same."""
    manifest = load_all(files, namespace=namespace)
    if manifest.errors:
        faults = list(map(str, manifest.errors))
        raise StatusError("Invalid", faults[0], faults)
    return manifest.objects


def _wording(loaded: LoadedObject) -> Callable[[FieldError], str]:
    return lambda error: str(loaded.error(error))
