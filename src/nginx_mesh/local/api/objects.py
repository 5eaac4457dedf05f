"""The objects of a local mesh as its API offers them: read, applied, changed, deleted; refused for a reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from nginx_mesh.admission import POLICIES, review
from nginx_mesh.admission.others import Others
from nginx_mesh.api import kinds, registry
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.loaded import LoadedObject
from nginx_mesh.api.manifest import load
from nginx_mesh.api.meta import ObjectKey, ObjectMeta
from nginx_mesh.api.nsm import MeshConfig, MeshConfigClass, MeshConfigClassSpec
from nginx_mesh.api.settings import CONTROL_PLANE_NAMESPACE, MESH_CONFIG_CLASS_NAME, MESH_CONFIG_NAME, MeshSettings
from nginx_mesh.api.validate import validate, validate_references
from nginx_mesh.inject import InjectSettings
from nginx_mesh.local.net.networks import DEFAULT, PodNetworks

from . import lifecycle
from .admission import Admission
from .events import EventLog
from .store import Resource, Store, Transaction, key_of

CONFIG_KEY = ObjectKey("MeshConfig", CONTROL_PLANE_NAMESPACE, MESH_CONFIG_NAME)

_CONTROLLER_NAME = "nsm.nginx.com/nginx-mesh-controller"
# What others refer to comes first.
_ORDER = ("Namespace", "ServiceAccount", "ConfigMap", "Secret", "Service")

Files = Iterable[tuple[str, bytes]]
"""Manifests: where each came from, and its content."""


class Outcome(NamedTuple):
    """What became of an applied object: created, configured or unchanged. `warnings` name it, and what to look at."""

    key: ObjectKey
    what: str
    warnings: tuple[str, ...] = ()


class RefusedError(Exception):
    """A request that cannot be granted. `reason` is a Kubernetes status reason; `details` one line per fault."""

    def __init__(self, reason: str, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = list(details)


class Objects:
    """The store behind its rules. `install_settings` are those the mesh was made with. Every method may raise
    RefusedError, and then nothing has changed; StoreError when the disk does not take a change.
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
        config = self._store.get(CONFIG_KEY)
        if config is None:
            return self._install_settings
        return self._install_settings.with_config(msgspec.convert(config, MeshConfig))

    def admission(self, tx: Transaction) -> Admission:
        """Admission within a transaction."""
        return Admission(tx, InjectSettings(), self._random, self._networks)

    def get(self, key: ObjectKey) -> Resource:
        """One object."""
        resource = self._store.get(key)
        if resource is None:
            raise RefusedError("NotFound", f'{_plural(key)} "{key.name}" not found')
        return resource

    def of_kind(self, kind: str, namespace: str | None) -> list[Resource]:
        """All objects of a kind, of one namespace or all."""
        return self._events.list(namespace) if kind == "Event" else self._store.list(kind, namespace)

    async def apply(self, files: Files, namespace: str) -> list[Outcome]:
        """Create or replace all objects of the manifests or, raising RefusedError, none; what became of each."""
        parsed = await asyncio.to_thread(_parse, files, namespace)
        unmet = validate_references(
            parsed, lambda key: self._store.get(key) is not None, namespace_labels=self._namespace_labels
        )
        if unmet:
            raise RefusedError("Invalid", str(unmet[0]), map(str, unmet))
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
                raise RefusedError("Invalid", f"{key}: kind, name and namespace may not change")
        if faults:
            raise RefusedError("Invalid", f"{key}: {faults[0]}", [f"{key}: {fault}" for fault in faults])
        self._put([(merged, lambda error: f"{key}: {error}")])
        return self.get(key)

    def configure(self, changes: Resource) -> None:
        """Change the mesh's settings that may change while it runs."""
        try:
            settings = msgspec.convert({**msgspec.to_builtins(self.settings()), **changes}, MeshSettings)
        except (msgspec.ValidationError, FieldError) as error:
            raise RefusedError("Invalid", str(error)) from None
        wanted = kinds.to_dict(settings.to_config())
        if self._install_settings.with_config(settings.to_config()) != settings:
            fixed = ", ".join(sorted(changes))
            raise RefusedError("Invalid", f"not all of these may change while the mesh runs: {fixed}")
        self._put([(wanted, str)])

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
                    raise RefusedError("Forbidden", f'namespaces "{key.name}" is forbidden: it may not be deleted')
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
            others = Others(tx)
            for number, (key, what, _) in sorted(outcomes.items()):
                if key.kind in POLICIES and what != "unchanged":
                    resource, worded = resources[number]
                    before = self._store.get(key)
                    obj, old = kinds.decode(resource), None if before is None else kinds.decode(before)
                    verdict = review(obj, old, others)
                    faults += map(worded, verdict.errors)
                    doubts += [(key, warning) for warning in verdict.warnings]
                    outcomes[number] = Outcome(key, what, tuple(map(worded, verdict.warnings)))
            if faults:
                raise RefusedError("Invalid", faults[0], faults)
            lifecycle.settle(tx, self._clock())
        for key, doubt in doubts:
            self._events.warn_once(key, "UnknownReference", str(doubt), or_said_as=f"Upsert{key.kind}Failed")
        return [outcomes[number] for number in sorted(outcomes)]

    def _namespace_labels(self, name: str) -> dict[str, str]:
        namespace = self._store.get(ObjectKey("Namespace", "", name)) or {"metadata": {}}
        labels: dict[str, str] = namespace["metadata"].get("labels", {})
        return labels

    def _seed(self) -> None:
        """What every mesh has from the start."""
        with self._store.transaction() as tx:
            for name in lifecycle.PERMANENT_NAMESPACES:
                namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                if tx.get(key_of(namespace)) is None:
                    tx.put({**namespace, "status": {"phase": "Active"}})
            if tx.fact("seeded") is None:
                config_class = MeshConfigClass(
                    metadata=ObjectMeta(name=MESH_CONFIG_CLASS_NAME),
                    spec=MeshConfigClassSpec(controller_name=_CONTROLLER_NAME),
                )
                tx.put(kinds.to_dict(config_class))
                tx.put(kinds.to_dict(self._install_settings.to_config()))
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
    loaded: list[LoadedObject] = []
    faults: list[str] = []
    seen: dict[ObjectKey, LoadedObject] = {}
    for source, data in files:
        manifest = load(data, source, namespace=namespace)
        faults += map(str, manifest.errors)
        for item in manifest.objects:
            first = seen.setdefault(item.object.key, item)
            if first is not item:
                faults.append(str(item.error(FieldError("metadata.name", f"the same object is in {first.source}"))))
        loaded += manifest.objects
    if faults:
        raise RefusedError("Invalid", faults[0], faults)
    return loaded


def _wording(loaded: LoadedObject) -> Callable[[FieldError], str]:
    return lambda error: str(loaded.error(error))
