"""One local mesh at work: its objects, and the parts that follow them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from nginx_mesh.admission import POLICY_KINDS
from nginx_mesh.api import kinds, registry
from nginx_mesh.api.core import EndpointSlice, Pod, Service
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.status import StatusError
from nginx_mesh.catalog.changes import Delete, Upsert
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.control.operator import MeshParts, Operator
from nginx_mesh.control.plane import Plane
from nginx_mesh.control.policyreporter import PolicyReporter
from nginx_mesh.control.readiness import readiness
from nginx_mesh.control.settings import CONFIG_KEY
from nginx_mesh.control.taphub import TapHub
from nginx_mesh.control.targets import Targets
from nginx_mesh.explain import Explainer
from nginx_mesh.identity.embedded import LocalIdentity
from nginx_mesh.inject import probe_entries
from nginx_mesh.node.reporting import Reporting
from nginx_mesh.node.sidecars import NodeSidecars
from nginx_mesh.node.workloadapis import WorkloadApis
from nginx_mesh.node.workloads import Workloads
from nginx_mesh.overview.server import Overview
from nginx_mesh.sidecar.image import image_version
from nginx_mesh.traffic.scraper import Scraper
from nginx_mesh.version import version

from .api.admission import NODE_NAME
from .api.events import EventLog
from .api.exec_server import ExecAnswer, ExecRequest
from .api.objects import Objects
from .api.store import Change, Store
from .controllers.reconcile import Reconciler
from .net.peering import pod_networks, restore
from .node.kubelet import Kubelet, NotRunningError
from .node.resolver import resolver
from .node.services import ServiceEntry, resolve_services
from .paths import MeshPaths
from .pods import PodKeeper
from .traffic import LocalTraffic

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
        self._plane = Plane(
            [_decode(item) for item in self._store.list()],
            self.objects.settings(),
            recorder=self._events,
            first_version=time.time_ns() // 1_000_000,
            probes=probe_entries,
            register=identity.agent.register,
            policies_moved=lambda keys: self._statuses.touch(keys),
        )
        self._sidecars = NodeSidecars(
            self._plane,
            control_socket=lambda uid: paths.pod_socket_dir(uid) / "control.sock",
            live=lambda uid: self._reporting.open(uid),
        )
        self._plane.subscribe(self._sidecars.changed)
        self._workloads = Workloads(identity.agent, self._sidecars)
        self.tap = TapHub(self._plane.catalog.topology, self._sidecars.tap)
        self._reporting = Reporting(
            NODE_NAME,
            paths.pod_socket_dir,
            live=lambda: set(self._sidecars.live().values()),
            find=self._meshed_pod,
            tapped=self.tap.received,
            resolver=lambda: resolver(paths.dns),
        )
        self._statuses = PolicyReporter(self._store, self._store, self._events, self._plane.standing, self._clock)
        self._kubelet = Kubelet(
            paths,
            images={SIDECAR_IMAGE: image} if image is not None else {},
            lookup=self._lookup,
            on_status=lambda key, status: self._pods.report(key, status),
            on_probe_failure=lambda key, container, why: self._pods.probe_failed(key, container, why),
            networks=networks,
        )
        self.scraper = Scraper(self._sidecars.live, self._sidecars.metrics)
        parts = MeshParts(
            name=paths.name,
            plane=self._plane,
            sidecars=self._sidecars,
            objects=self._store,
            storage=self._store.problem,
            events=self._events,
            identity=identity,
            settings=self.objects.settings,
            readiness=self.readiness,
            versions={
                "nginx-mesh-local": version(),
                "nginx-mesh-sidecar": "none" if image is None else image_version(image),
            },
            clock=self._clock,
        )
        self.operator = Operator(parts)
        self.overview = Overview(parts, self.scraper, self.identities)
        self.explainer = Explainer(
            self._plane.catalog, lambda: self._plane.settings, self._sidecars, self._lookup, _kind_named
        )
        self.traffic = LocalTraffic(
            self.scraper, lambda: self.objects.settings().prometheus_address, self._store.get, machine
        )
        self.targets = Targets(self._plane.catalog.topology, self._sidecars)
        self._workload_apis = WorkloadApis(paths.run, paths.workload_api_dir, identity.agent)
        self._pods = PodKeeper(
            self._store,
            self._kubelet,
            self._plane,
            self._workloads,
            self._workload_apis,
            self._events,
            self._clock,
            _decode_pod,
        )
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
        self._workloads.start()
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
        self._statuses.touch(self._plane.policies())
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
        await self._plane.close()
        await self._workloads.close()
        await self._sidecars.close()
        await self.identity.close()
        await self._kubelet.close()
        self._store.close()

    def describe(self, key: ObjectKey) -> Resource:
        """An object with its events and, for a Service, the addresses behind it. Raises StatusError."""
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
        """As `control.readiness.readiness`."""
        return readiness(self._store, self._events.latest_warning, only)

    def log_path(self, key: ObjectKey, container: str) -> Path:
        """Where a container's output is. Raises StatusError."""
        pod = self.objects.get(key)
        names = [entry["name"] for entry in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]]
        if container not in names:
            raise StatusError("BadRequest", f"container {container} is not valid for pod {key.name}")
        return self._paths.pod_logs(pod["metadata"]["uid"]) / f"{container}.log"

    async def exec(self, request: ExecRequest, files: list[int]) -> ExecAnswer:
        """Run a command in a container, reading and writing these descriptors (stdin, stdout, stderr)."""
        key = ObjectKey("Pod", request.namespace, request.pod)
        try:
            spec = self.objects.get(key)["spec"]
            container = request.container or spec["containers"][0]["name"]
            if container not in [entry["name"] for entry in spec["containers"]]:
                raise StatusError("BadRequest", f"container {container} is not valid for pod {key.name}")
        except StatusError as error:
            return ExecAnswer(error=str(error), reason=error.reason)
        stdin, stdout, stderr = files
        try:
            code = await self._kubelet.exec(key, container, request.command, stdin, stdout, stderr, tty=request.tty)
        except NotRunningError as error:
            return ExecAnswer(error=str(error), reason="BadRequest")
        return ExecAnswer(exit_code=code)

    def _changed(self, change: Change) -> None:
        key = change.key
        if key.kind in POLICY_KINDS and _says_the_same(change):
            return
        self._plane.apply(Delete(key) if change.new is None else Upsert(_decode(change.new)))
        if key == CONFIG_KEY:
            settings = self.objects.settings()
            self.identity.configure(settings)
            self._plane.configure(settings)
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

    def _meshed_pod(self, uid: str) -> tuple[PodRecord, str] | None:
        """The meshed pod with a uid, and its SPIFFE ID."""
        pod = self._workloads.pod(uid)
        workload = None if pod is None else self._plane.catalog.topology.pod(pod)
        spiffe_id = None if pod is None else self._plane.registrations.spiffe_id(pod)
        return None if workload is None or spiffe_id is None else (workload, spiffe_id)

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
