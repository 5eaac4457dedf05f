"""One local mesh at work: its objects, and the parts that follow them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from nginx_mesh.admission import POLICIES
from nginx_mesh.api import kinds
from nginx_mesh.api.core import EndpointSlice, Pod, Service
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.changes import Delete, Upsert
from nginx_mesh.explain import Explainer
from nginx_mesh.sidecar.image import image_version

from . import registry
from .events import EventLog
from .exec_server import ExecAnswer, ExecRequest
from .identity import LocalIdentity
from .kubelet import Kubelet, NotRunningError
from .links import pod_networks, restore
from .mesh import Mesh
from .objects import CONFIG_KEY, Objects, RefusedError
from .operator import Operator, Parts
from .overview import Overview
from .paths import MeshPaths
from .pods import PodKeeper
from .policystatus import PolicyStatuses
from .readiness import unready
from .reconcile import PLANNERS, Reconciler
from .reporting import Reporting
from .scraper import Scraper
from .services import ServiceEntry, resolve_services
from .store import Change, Resource, Store, key_of
from .tap import TapHub
from .targets import Targets
from .traffic import LocalTraffic
from .workloadapis import WorkloadApis

log = logging.getLogger(__name__)

SIDECAR_IMAGE = "nginx-mesh/sidecar"


class Runtime:
    """Owns everything of one mesh but its sockets. Made and used on one event loop, inside the node's namespace.

    `objects` is what its API reads and changes; `scraper` and `traffic` know the traffic, `targets` who counts it;
    `operator` knows how the mesh is, `explainer` what would become of requests. `machine` is a descriptor of the
    machine's own network.
    """

    def __init__(
        self, paths: MeshPaths, settings: MeshSettings, image: Path | None, identity: LocalIdentity, machine: int
    ) -> None:
        self._paths = paths
        self.identity = identity
        self._clock: Callable[[], float] = time.time
        self._store = Store(paths.state / "store.db", self._clock)
        self._events = EventLog(self._clock)
        networks = pod_networks(paths)
        self.objects = Objects(self._store, self._events, settings, self._clock, networks)
        self._mesh = Mesh(
            [_decode(item) for item in self._store.list()],
            self.objects.settings(),
            identity.agent,
            control_socket=lambda uid: paths.pod_socket_dir(uid) / "control.sock",
            warn=lambda key, reason, message: self._events.record(key, "Warning", reason, message),
            policies_moved=lambda keys: self._statuses.touch(keys),
            live=lambda uid: self._reporting.open(uid),
        )
        self.tap = TapHub(self._mesh.catalog.topology, self._tappable)
        self._reporting = Reporting(paths, self._mesh.control_sockets, self._mesh.workload, self.tap.received)
        self._statuses = PolicyStatuses(self._store, self._mesh.standing, self._events, self._clock)
        self._kubelet = Kubelet(
            paths,
            images={SIDECAR_IMAGE: image} if image is not None else {},
            lookup=self._lookup,
            on_status=lambda key, status: self._pods.report(key, status),
            on_probe_failure=lambda key, container, why: self._pods.probe_failed(key, container, why),
            networks=networks,
        )
        self.scraper = Scraper(self._mesh.control_sockets)
        self.overview = Overview(
            paths.name, self.objects, self._mesh, self.scraper, self._events, self.identities, self._clock
        )
        self.explainer = Explainer(
            self._mesh.catalog, lambda: self._mesh.settings, self._mesh.explain_socket, self._lookup, _kind_named
        )
        self.traffic = LocalTraffic(
            self.scraper, lambda: self.objects.settings().prometheus_address, self._store.get, machine
        )
        self.targets = Targets(self._mesh.scraped)
        self._workload_apis = WorkloadApis(paths, identity.agent)
        self._pods = PodKeeper(
            self._store, self._kubelet, self._mesh, self._workload_apis, self._events, self._clock, _decode_pod
        )
        parts = Parts(
            paths.name,
            self._store,
            self._events,
            self.objects,
            self._mesh,
            identity,
            self.readiness,
            self._clock,
        )
        self.operator = Operator(parts, "none" if image is None else image_version(image))
        self._services_stale = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take up what an earlier daemon left, and follow the store from now on."""
        self._store.watch(self._changed)
        await self._kubelet.start(self._typed_pods(None))
        await asyncio.to_thread(restore, self._paths)
        self.identity.configure(self.objects.settings())
        self._reporting.configure(self.objects.settings())
        await self.identity.start()
        await self._mesh.start()
        await self._workload_apis.start()
        self._pods.start()
        self._reconciler = Reconciler(
            self._store, lambda tx, pod: self.objects.admission(tx).new_pod(pod), self._events, self._clock
        )
        self._services_stale.set()
        self._spawn(self._keep_services())
        self._spawn(self.scraper.run())
        self._spawn(self._reporting.run())
        self._spawn(self.tap.run())
        self._statuses.touch(self._mesh.policies())
        self._spawn(self._statuses.run())

    async def close(self) -> None:
        """Stop; pods and sidecars go on."""
        self._reconciler.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.traffic.close()
        await self._pods.close()
        await self._reporting.close()
        await self._workload_apis.close_all()
        await self._mesh.close()
        await self.identity.close()
        await self._kubelet.close()
        self._store.close()

    def describe(self, key: ObjectKey) -> Resource:
        """An object with its events and, for a Service, the addresses behind it. Raises RefusedError."""
        resource = self.objects.get(key)
        described = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
        events = [event for event in self._events.list() if event["involvedObject"] == described]
        answer: Resource = {"object": resource, "events": events}
        if key.kind == "Pod":
            held = self.identity.agent.holding(resource["metadata"]["uid"])
            answer["identity"] = None if held is None else msgspec.to_builtins(held)
        if key.kind == "Service":
            (entry,) = self._resolved([resource], key.namespace)
            answer["endpoints"] = [
                f"{backend.addresses[0]}:{port}" for backend in entry.active for port in backend.ports if port
            ]
        return answer

    def identities(self) -> list[Resource]:
        """The identity of every pod that has one or waits for one."""
        return [
            {
                "namespace": pod.metadata.namespace,
                "pod": pod.metadata.name,
                "uid": pod.metadata.uid,
                **msgspec.to_builtins(held),
            }
            for pod in self._typed_pods(None)
            if (held := self.identity.agent.holding(pod.metadata.uid)) is not None
        ]

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
        pod = self.objects.get(key)
        names = [entry["name"] for entry in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]]
        if container not in names:
            raise RefusedError("BadRequest", f"container {container} is not valid for pod {key.name}")
        return self._paths.pod_logs(pod["metadata"]["uid"]) / f"{container}.log"

    async def exec(self, request: ExecRequest, files: list[int]) -> ExecAnswer:
        """Run a command in a container, reading and writing these descriptors (stdin, stdout, stderr)."""
        key = ObjectKey("Pod", request.namespace, request.pod)
        try:
            spec = self.objects.get(key)["spec"]
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

    def _changed(self, change: Change) -> None:
        key = change.key
        if key.kind in POLICIES and _says_the_same(change):
            return
        self._mesh.apply(Delete(key) if change.new is None else Upsert(_decode(change.new)))
        if key == CONFIG_KEY:
            settings = self.objects.settings()
            self.identity.configure(settings)
            self._mesh.configure(settings)
            self._reporting.configure(settings)
        if key.kind in ("Pod", "Service", "EndpointSlice"):
            self._services_stale.set()
        if key.kind in ("ConfigMap", "Secret"):
            self._spawn(self._kubelet.object_changed(key))

    async def _keep_services(self) -> None:
        """Keep the table of services, for DNS and for what dials them without a sidecar."""
        while True:
            await self._services_stale.wait()
            self._services_stale.clear()
            try:
                await self._kubelet.sync_services(self._resolved(self._store.list("Service"), None))
            except Exception:
                log.exception("cannot update the services")
                await asyncio.sleep(1)
                self._services_stale.set()

    def _tappable(self) -> dict[ObjectKey, Path]:
        sockets = self._mesh.control_sockets()
        return {sidecar.pod: sockets[sidecar.uid] for sidecar in self._mesh.sidecars() if sidecar.uid in sockets}

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _resolved(self, services: list[Resource], namespace: str | None) -> list[ServiceEntry]:
        """What is behind services of a namespace, or of any."""
        slices = [msgspec.convert(item, EndpointSlice) for item in self._store.list("EndpointSlice", namespace)]
        return resolve_services(
            (msgspec.convert(service, Service) for service in services), self._typed_pods(namespace), slices
        )

    def _typed_pods(self, namespace: str | None) -> list[Pod]:
        return [_decode_pod(item) for item in self._store.list("Pod", namespace)]

    def _lookup(self, key: ObjectKey) -> Object | None:
        resource = self._store.get(key)
        return None if resource is None else _decode(resource)


def _says_the_same(change: Change) -> bool:
    """Whether all that is new of a policy is its status."""
    old, new = change.old, change.new
    if old is None or new is None:
        return False
    return all(old["metadata"][name] == new["metadata"][name] for name in ("uid", "generation"))


def _decode(resource: Resource) -> Object:
    return kinds.decode(resource)


def _decode_pod(resource: Resource) -> Pod:
    return msgspec.convert(resource, Pod)


def _kind_named(title: str) -> str | None:
    kind = registry.find(title)
    return None if kind is None else kind.KIND
