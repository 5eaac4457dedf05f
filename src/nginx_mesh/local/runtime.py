"""A running local mesh: its store and API, its control plane, and its only node, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from nginx_mesh.admission import POLICY_KINDS
from nginx_mesh.api import discovery, kinds
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.settings import MeshSettings
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
from nginx_mesh.explain.server import explain_handler
from nginx_mesh.identity.embedded import LocalIdentity
from nginx_mesh.inject import probe_entries
from nginx_mesh.node.reporting import Reporting
from nginx_mesh.node.sidecars import NodeSidecars
from nginx_mesh.node.workloadapis import WorkloadApis
from nginx_mesh.node.workloads import Workloads
from nginx_mesh.observe.tasks import TaskSet
from nginx_mesh.overview.server import Overview
from nginx_mesh.sidecar.image import image_version
from nginx_mesh.traffic import documents
from nginx_mesh.traffic.scraper import Scraper
from nginx_mesh.traffic.server import TrafficMetrics
from nginx_mesh.version import version

from .api.admission import NODE_NAME
from .api.describe import Describer
from .api.events import EventLog
from .api.exec_server import ExecServer
from .api.identityroutes import IdentityRoutes
from .api.logroutes import LogRoutes
from .api.objectroutes import ObjectRoutes
from .api.objects import Objects
from .api.server import ApiServer
from .api.store import ObjectChange, Store
from .api.typed import find_object, list_pods
from .controllers.reconcile import Reconciler
from .exec import ContainerExec
from .net.peering import pod_networks, restore
from .node.kubelet import Kubelet
from .node.resolver import resolver
from .paths import MeshPaths
from .pods import PodSync
from .services import ServiceSync
from .traffic import LocalTraffic

SIDECAR_IMAGE = "nginx-mesh/sidecar"


class Runtime:
    """Makes and owns every part of one mesh. Made and used on one event loop, inside the node's namespace.

    `image` is the sidecar image, None for a mesh without sidecars. `machine` is a descriptor of the machine's own
    network namespace.
    """

    def __init__(
        self, paths: MeshPaths, settings: MeshSettings, image: Path | None, identity: LocalIdentity, machine: int
    ) -> None:
        self._paths = paths
        self._identity = identity
        self._tasks = TaskSet()
        self._reconciler: Reconciler | None = None
        clock: Callable[[], float] = time.time
        self._clock = clock
        networks = pod_networks(paths)

        # Objects.
        store = self._store = Store(paths.state / "store.db", clock)
        events = self._events = EventLog(clock)
        objects = self._objects = Objects(store, events, settings, clock, networks)

        # The control plane, and the sidecars of the node.
        self._plane = Plane(
            [kinds.decode(item) for item in store.list()],
            objects.settings(),
            recorder=events,
            first_version=time.time_ns() // 1_000_000,
            probes=probe_entries,
            register=identity.agent.register,
            policies_moved=lambda keys: self._policy_reporter.touch(keys),
        )
        self._sidecars = NodeSidecars(
            self._plane,
            control_socket=lambda uid: paths.pod_socket_dir(uid) / "control.sock",
            live=lambda uid: self._reporting.open(uid),
        )
        self._plane.subscribe(self._sidecars.changed)
        self._workloads = Workloads(identity.agent, self._sidecars)
        self._workload_apis = WorkloadApis(paths.run, paths.workload_api_dir, identity.agent)
        self._policy_reporter = PolicyReporter(store, store, events, self._plane.standing, clock)

        # Requests, as the sidecars report and count them.
        self._tap = TapHub(self._plane.catalog.topology, self._sidecars.tap)
        self._reporting = Reporting(
            NODE_NAME,
            paths.pod_socket_dir,
            live=lambda: set(self._sidecars.live().values()),
            find=self._find_meshed_pod,
            tapped=self._tap.received,
            resolver=lambda: resolver(paths.dns),
        )
        self._scraper = Scraper(self._sidecars.live, self._sidecars.metrics)
        self._traffic = LocalTraffic(self._scraper, lambda: objects.settings().prometheus_address, store.get, machine)

        # Pods and Services on the node.
        self._kubelet = Kubelet(
            paths,
            images={SIDECAR_IMAGE: image} if image is not None else {},
            lookup=lambda key: find_object(store, key),
            on_status=lambda key, status: self._pods.report(key, status),
            on_probe_failure=lambda key, container, why: self._pods.probe_failed(key, container, why),
            networks=networks,
            node_name=NODE_NAME,
        )
        self._pods = PodSync(store, self._kubelet, self._plane, self._workloads, self._workload_apis, events, clock)
        self._services = ServiceSync(store, self._kubelet.sync_services)

        # Servers.
        self._api = self._make_api("none" if image is None else image_version(image))
        self._exec_server = ExecServer(paths.run / "exec.sock", ContainerExec(objects, self._kubelet).run)

    async def start(self) -> None:
        """Continue with the pods of an earlier daemon, follow the store from now on, and serve."""
        settings = self._objects.settings()
        self._store.watch(self._follow)
        self._store.watch(self._services.follow)
        await self._kubelet.start(list_pods(self._store))
        await asyncio.to_thread(restore, self._paths)
        self._identity.configure(settings)
        self._reporting.configure(settings)
        await self._identity.start()
        self._workloads.start()
        await self._workload_apis.start()
        self._pods.start()
        self._reconciler = Reconciler(
            self._store, lambda tx, pod: self._objects.admission(tx).new_pod(pod), self._events, self._clock
        )
        self._tasks.start(self._services.run(), "keep the services up to date")
        self._tasks.start(self._scraper.run(), "scrape the sidecars")
        self._tasks.start(self._reporting.run(), "receive the sidecars' reports")
        self._tasks.start(self._tap.run(), "serve taps")
        self._policy_reporter.touch(self._plane.policies())
        self._tasks.start(self._policy_reporter.run(), "write the statuses of policies")
        self._exec_server.start()
        await self._api.start()

    async def close(self) -> None:
        """Stop. Pods and sidecars continue to run."""
        await self._api.close()
        await self._exec_server.close()
        if self._reconciler is not None:
            self._reconciler.close()
        await self._tasks.close()
        await self._traffic.close()
        await self._pods.close()
        await self._reporting.close()
        await self._workload_apis.close_all()
        await self._plane.close()
        await self._workloads.close()
        await self._sidecars.close()
        await self._identity.close()
        await self._kubelet.close()
        self._store.close()

    def _make_api(self, sidecar_version: str) -> ApiServer:
        store, objects, topology = self._store, self._objects, self._plane.catalog.topology
        describer = Describer(objects, self._events, self._identity.svid_status, self._services.endpoints)
        identities = IdentityRoutes(store, self._identity)
        parts = MeshParts(
            name=self._paths.name,
            plane=self._plane,
            sidecars=self._sidecars,
            objects=store,
            storage=store.problem,
            events=self._events,
            identity=self._identity,
            settings=objects.settings,
            readiness=self._readiness,
            versions={"nginx-mesh-local": version(), "nginx-mesh-sidecar": sidecar_version},
            clock=self._clock,
        )
        explainer = Explainer(
            self._plane.catalog,
            lambda: self._plane.settings,
            self._sidecars,
            lambda key: find_object(store, key),
            _kind_titled,
        )
        traffic_metrics = TrafficMetrics(self._traffic.flows)
        routes: list[web.RouteDef] = [
            *Operator(parts).routes(),
            *self._tap.routes(),
            *ObjectRoutes(objects, describer.describe, self._readiness).routes(),
            *LogRoutes(objects, self._paths.pod_logs).routes(),
            *identities.routes(),
            *Overview(parts, self._scraper, identities.all).routes(),
            *Targets(topology, self._sidecars).routes(),
            web.post("/mesh/explain", explain_handler(explainer)),
        ]
        applications = {**identities.applications(), documents.ROOT: traffic_metrics.application()}
        return ApiServer(self._paths.run / "api.sock", routes, applications)

    def _readiness(self, only: set[ObjectKey] | None = None) -> Resource:
        return readiness(self._store, self._events.latest_warning, only)

    def _follow(self, change: ObjectChange) -> None:
        key = change.key
        if key.kind in POLICY_KINDS and _has_same_spec(change):
            return
        self._plane.apply(Delete(key) if change.new is None else Upsert(kinds.decode(change.new)))
        if key == CONFIG_KEY:
            settings = self._objects.settings()
            self._identity.configure(settings)
            self._plane.configure(settings)
            self._reporting.configure(settings)
        if key.kind in ("ConfigMap", "Secret"):
            self._tasks.start(self._kubelet.object_changed(key), f"update the volumes with {key}")

    def _find_meshed_pod(self, uid: str) -> tuple[PodRecord, str] | None:
        """The meshed pod with a uid, and its SPIFFE ID."""
        pod = self._workloads.pod(uid)
        workload = None if pod is None else self._plane.catalog.topology.pod(pod)
        spiffe_id = None if pod is None else self._plane.registrations.spiffe_id(pod)
        return None if workload is None or spiffe_id is None else (workload, spiffe_id)


def _has_same_spec(change: ObjectChange) -> bool:
    """Whether nothing but the status of an object has changed."""
    old, new = change.old, change.new
    if old is None or new is None:
        return False
    return all(old["metadata"][name] == new["metadata"][name] for name in ("uid", "generation"))


def _kind_titled(title: str) -> str | None:
    kind = discovery.find(title)
    return None if kind is None else kind.KIND
