"""One local mesh at work: what its API offers, and the parts that follow the store."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import msgspec

from nginx_mesh.api import kinds
from nginx_mesh.api.core import Pod, Service
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.loaded import LoadedObject
from nginx_mesh.api.manifest import load
from nginx_mesh.api.meta import Object, ObjectKey, ObjectMeta
from nginx_mesh.api.nsm import MeshConfig, MeshConfigClass, MeshConfigClassSpec
from nginx_mesh.api.settings import CONTROL_PLANE_NAMESPACE, MESH_CONFIG_CLASS_NAME, MESH_CONFIG_NAME, MeshSettings
from nginx_mesh.api.validate import validate, validate_references
from nginx_mesh.catalog.changes import Delete, Upsert
from nginx_mesh.identity.keymanager import open_key_manager
from nginx_mesh.inject import InjectSettings

from . import lifecycle, registry
from .admission import Admission
from .events import EventLog
from .exec_server import ExecAnswer, ExecRequest
from .kubelet import Kubelet, NotRunningError
from .mesh import Mesh
from .paths import MeshPaths
from .pods import PodKeeper
from .readiness import unready
from .reconcile import PLANNERS, Reconciler
from .services import resolve_services
from .store import Change, Resource, Store, Transaction, key_of

log = logging.getLogger(__name__)

_CONTROLLER_NAME = "nsm.nginx.com/nginx-mesh-controller"
SIDECAR_IMAGE = "nginx-mesh/sidecar"

_CONFIG_KEY = ObjectKey("MeshConfig", CONTROL_PLANE_NAMESPACE, MESH_CONFIG_NAME)
# What others refer to comes first.
_ORDER = ("Namespace", "ServiceAccount", "ConfigMap", "Secret", "Service")


class RefusedError(Exception):
    """A request that cannot be granted. `reason` is a Kubernetes status reason; `details` one line per fault."""

    def __init__(self, reason: str, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = list(details)


class Runtime:
    """Owns everything of one mesh but its sockets. Made and used on one event loop, inside the node's namespace."""

    def __init__(self, paths: MeshPaths, settings: MeshSettings, image: Path | None) -> None:
        self._clock: Callable[[], float] = time.time
        self._install_settings = settings
        self._random = random.SystemRandom()
        self._store = Store(paths.state / "store.db", self._clock)
        self._events = EventLog(self._clock)
        self._seed()
        self._settings = self._current_settings()
        self._mesh = Mesh(
            [_decode(item) for item in self._store.list()],
            self._settings,
            open_key_manager(settings.key_manager, paths.state / "identity"),
            control_socket=lambda uid: paths.pod_socket_dir(uid) / "control.sock",
            warn=lambda key, reason, message: self._events.record(key, "Warning", reason, message),
        )
        self._kubelet = Kubelet(
            paths,
            images={SIDECAR_IMAGE: image} if image is not None else {},
            lookup=self._lookup,
            on_status=lambda key, status: self._pods.report(key, status),
        )
        self._pods = PodKeeper(self._store, self._kubelet, self._mesh, self._events, self._clock, _decode_pod)
        self._services_stale = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take up what an earlier daemon left, and follow the store from now on."""
        self._store.watch(self._changed)
        await self._kubelet.start(self._typed_pods(None))
        await self._mesh.start()
        self._pods.start()
        self._reconciler = Reconciler(
            self._store, lambda tx, pod: self._admission(tx).new_pod(pod), self._events, self._clock
        )
        self._services_stale.set()
        self._spawn(self._keep_services())

    async def close(self) -> None:
        """Stop; pods and sidecars go on."""
        self._reconciler.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pods.close()
        await self._mesh.close()
        await self._kubelet.close()
        self._store.close()

    async def apply(self, files: Iterable[tuple[str, bytes]], namespace: str) -> list[tuple[ObjectKey, str]]:
        """Create or replace all objects of the manifests or, raising RefusedError, none; what became of each."""
        parsed = await asyncio.to_thread(_parse, files, namespace)
        unmet = validate_references(
            parsed, lambda key: self._store.get(key) is not None, namespace_labels=self._namespace_labels
        )
        if unmet:
            raise RefusedError("Invalid", str(unmet[0]), map(str, unmet))
        return self._put([(loaded.raw, _wording(loaded)) for loaded in parsed])

    def get(self, key: ObjectKey) -> Resource:
        """One object. Raises RefusedError."""
        resource = self._store.get(key)
        if resource is None:
            raise RefusedError("NotFound", f'{_plural(key)} "{key.name}" not found')
        return resource

    def objects(self, kind: str, namespace: str | None) -> list[Resource]:
        """All objects of a kind, of one namespace or all."""
        return self._events.list(namespace) if kind == "Event" else self._store.list(kind, namespace)

    def patch(self, key: ObjectKey, patch: Resource) -> Resource:
        """Change an object by a JSON merge patch (RFC 7386). Raises RefusedError."""
        merged = merge_patch(self.get(key), patch)
        if not isinstance(merged, dict) or key_of(merged) != key:
            raise RefusedError("Invalid", "kind, name and namespace may not change")
        try:
            faults = validate(kinds.decode(merged))
        except FieldError as error:
            faults = [error]
        if faults:
            raise RefusedError("Invalid", f"{key}: {faults[0]}", [f"{key}: {fault}" for fault in faults])
        self._put([(merged, lambda error: f"{key}: {error}")])
        return self.get(key)

    def configure(self, changes: Resource) -> None:
        """Change the mesh's settings that may change while it runs. Raises RefusedError."""
        try:
            settings = msgspec.convert({**msgspec.to_builtins(self._settings), **changes}, MeshSettings)
        except (msgspec.ValidationError, FieldError) as error:
            raise RefusedError("Invalid", str(error)) from None
        wanted = kinds.to_dict(settings.to_config())
        if self._install_settings.with_config(settings.to_config()) != settings:
            fixed = ", ".join(sorted(changes))
            raise RefusedError("Invalid", f"not all of these may change while the mesh runs: {fixed}")
        self._put([(wanted, str)])

    async def delete_all(
        self, files: Iterable[tuple[str, bytes]], namespace: str, grace_seconds: int | None
    ) -> list[tuple[ObjectKey, str | None]]:
        """Ask for all objects of the manifests to go; their uids, None for those that are not there."""
        keys = [loaded.object.key for loaded in await asyncio.to_thread(_parse, files, namespace)]
        return self._delete(keys, grace_seconds)

    def delete(self, key: ObjectKey, grace_seconds: int | None) -> Resource:
        """Ask for an object to go; the object. Raises RefusedError."""
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

    def describe(self, key: ObjectKey) -> Resource:
        """An object with its events and, for a Service, the addresses behind it. Raises RefusedError."""
        resource = self.get(key)
        described = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
        events = [event for event in self._events.list() if event["involvedObject"] == described]
        answer: Resource = {"object": resource, "events": events}
        if key.kind == "Service":
            (entry,) = resolve_services([_decode_service(resource)], self._typed_pods(key.namespace))
            answer["endpoints"] = [
                f"{backend.addresses[0]}:{port}" for backend in entry.active for port in backend.ports if port
            ]
        return answer

    def readiness(self, only: set[ObjectKey] | None = None) -> Resource:
        """How many pods there are and are ready, and what is not ready and why; with `only`, of these workloads."""
        resources = [item for kind in ("Pod", *PLANNERS) for item in self._store.list(kind)]
        if only is not None:
            owners = {item["metadata"]["uid"] for item in resources if key_of(item) in only}
            resources = [
                item
                for item in resources
                if key_of(item) in only
                or owners & {owner["uid"] for owner in item["metadata"].get("ownerReferences", [])}
            ]
        waiting = unready(resources, self._events.latest_warning)
        pods = [item for item in resources if item["kind"] == "Pod" and "deletionTimestamp" not in item["metadata"]]
        unready_pods = sum(entry.key.kind == "Pod" for entry in waiting)
        return {
            "pods": len(pods),
            "ready": len(pods) - unready_pods,
            "waiting": [
                {
                    "object": f"{entry.key.kind.lower()}/{entry.key.name}",
                    "namespace": entry.key.namespace,
                    "reason": entry.reason,
                    "container": entry.container,
                    "hopeless": entry.hopeless,
                }
                for entry in waiting
            ],
        }

    def log_path(self, key: ObjectKey, container: str) -> Path:
        """Where a container's output is. Raises RefusedError."""
        spec = self.get(key)["spec"]
        names = [entry["name"] for entry in [*spec.get("initContainers", []), *spec["containers"]]]
        if container not in names:
            raise RefusedError("BadRequest", f"container {container} is not valid for pod {key.name}")
        try:
            return self._kubelet.log_path(key, container)
        except NotRunningError as error:
            raise RefusedError("BadRequest", str(error)) from None

    async def exec(self, request: ExecRequest, files: list[int]) -> ExecAnswer:
        """Run a command in a container, reading and writing these descriptors (stdin, stdout, stderr)."""
        key = ObjectKey("Pod", request.namespace, request.pod)
        try:
            spec = self.get(key)["spec"]
            container = request.container or spec["containers"][0]["name"]
            if container not in [entry["name"] for entry in spec["containers"]]:
                raise RefusedError("BadRequest", f"container {container} is not valid for pod {key.name}")
        except RefusedError as error:
            return ExecAnswer(error=str(error), reason=error.reason)
        stdin, stdout, stderr = files
        try:
            code = await self._kubelet.exec(key, container, request.command, stdin, stdout, stderr, tty=request.tty)
        except NotRunningError as error:
            return ExecAnswer(error=str(error), reason="BadRequest")
        return ExecAnswer(exit_code=code)

    def _put(self, resources: list[tuple[Resource, Callable[[FieldError], str]]]) -> list[tuple[ObjectKey, str]]:
        """Store objects, all or none; each comes with how to word what is wrong with it. Raises RefusedError."""
        faults: list[str] = []
        outcomes: dict[int, tuple[ObjectKey, str]] = {}
        with self._store.transaction() as tx:
            admission = self._admission(tx)
            for number in sorted(range(len(resources)), key=lambda n: _rank(resources[n][0])):
                resource, worded = resources[number]
                try:
                    outcomes[number] = key_of(resource), tx.put(admission.admit(resource))
                except FieldError as error:
                    faults.append(worded(error))
            if faults:
                raise RefusedError("Invalid", faults[0], faults)
            lifecycle.settle(tx, self._clock())
        return [outcomes[number] for number in sorted(outcomes)]

    def _admission(self, tx: Transaction) -> Admission:
        return Admission(tx, InjectSettings(), self._random)

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

    def _current_settings(self) -> MeshSettings:
        config = self._store.get(_CONFIG_KEY)
        if config is None:
            return self._install_settings
        decoded = _decode(config)
        assert isinstance(decoded, MeshConfig)  # noqa: S101 - its key says so
        return self._install_settings.with_config(decoded)

    def _changed(self, change: Change) -> None:
        key = change.key
        self._mesh.apply(Delete(key) if change.new is None else Upsert(_decode(change.new)))
        if key == _CONFIG_KEY:
            self._settings = self._current_settings()
            self._mesh.configure(self._settings)
        if key.kind in ("Pod", "Service"):
            self._services_stale.set()
        if key.kind in ("ConfigMap", "Secret"):
            self._spawn(self._kubelet.object_changed(key))

    async def _keep_services(self) -> None:
        """Keep the table of services, for DNS and for what dials them without a sidecar."""
        while True:
            await self._services_stale.wait()
            self._services_stale.clear()
            try:
                services = [_decode_service(item) for item in self._store.list("Service")]
                await self._kubelet.sync_services(resolve_services(services, self._typed_pods(None)))
            except Exception:
                log.exception("cannot update the services")
                await asyncio.sleep(1)
                self._services_stale.set()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _typed_pods(self, namespace: str | None) -> list[Pod]:
        return [_decode_pod(item) for item in self._store.list("Pod", namespace)]

    def _lookup(self, key: ObjectKey) -> Object | None:
        resource = self._store.get(key)
        return None if resource is None else _decode(resource)


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


def _parse(files: Iterable[tuple[str, bytes]], namespace: str) -> list[LoadedObject]:
    """The objects of manifests, of which no two may be the same. Raises RefusedError."""
    loaded: list[LoadedObject] = []
    faults: list[str] = []
    seen: dict[ObjectKey, str] = {}
    for source, data in files:
        manifest = load(data, source, namespace=namespace)
        faults += map(str, manifest.errors)
        for item in manifest.objects:
            if (earlier := seen.setdefault(item.object.key, item.source)) != item.source:
                faults.append(str(item.error(FieldError("metadata.name", f"the same object is in {earlier}"))))
        loaded += manifest.objects
    if faults:
        raise RefusedError("Invalid", faults[0], faults)
    return loaded


def _wording(loaded: LoadedObject) -> Callable[[FieldError], str]:
    return lambda error: str(loaded.error(error))


def _decode(resource: Resource) -> Object:
    return kinds.decode(resource)


def _decode_pod(resource: Resource) -> Pod:
    return msgspec.convert(resource, Pod)


def _decode_service(resource: Resource) -> Service:
    return msgspec.convert(resource, Service)
