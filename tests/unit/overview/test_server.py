"""The API of the dashboard, over a real control plane, store and scraper."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from nginx_mesh.api.annotations import INJECTED, SIDECAR_CONTAINER, STATUS
from nginx_mesh.api.kinds import decode
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.status import StatusError
from nginx_mesh.catalog.changes import Delete
from nginx_mesh.compile.inbound import no_probes
from nginx_mesh.control.operator import IdentityFacts, MeshParts
from nginx_mesh.control.plane import Plane
from nginx_mesh.local.api.events import EventLog
from nginx_mesh.local.api.store import Store
from nginx_mesh.overview import server
from nginx_mesh.overview.server import Overview
from nginx_mesh.protocol.control import SidecarUnreachableError, Tap
from nginx_mesh.protocol.standing import SidecarReport
from nginx_mesh.traffic.graph import GraphNode
from nginx_mesh.traffic.scraper import Scraper
from tests.unit.traffic.sidecarmetrics import SidecarMetrics

CLIENT_ID, WEB_ID = "shop/deployment/client", "shop/deployment/web"
WEB_POD = {"pod": "web-1", "namespace": "shop", "deployment": "web", "service": "web"}


def deployment(name: str, replicas: int) -> Resource:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}}


def pod(name: str, owner: str, ip: str) -> Resource:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"app": owner, "nsm.nginx.com/deployment": owner},
            "annotations": {STATUS: INJECTED},
            "creationTimestamp": "2024-01-01T00:00:00Z",
        },
        "spec": {
            "serviceAccountName": owner,
            "containers": [{"name": "app", "ports": [{"containerPort": 80}]}, {"name": SIDECAR_CONTAINER}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]},
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"port": 80}]},
}
TARGET = {
    "apiVersion": "access.smi-spec.io/v1alpha2",
    "kind": "TrafficTarget",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "destination": {"kind": "ServiceAccount", "name": "web", "namespace": "shop"},
        "sources": [{"kind": "ServiceAccount", "name": "client", "namespace": "shop"}],
    },
    "status": {"conditions": [{"type": "InForce", "status": "True", "reason": "Acknowledged", "message": "all"}]},
}
OBJECTS = (
    deployment("client", 2),
    pod("client-1", "client", "10.0.0.1"),
    pod("web-1", "web", "10.0.0.2"),
    SERVICE,
    TARGET,
)


class Mesh:
    """A control plane, store and scraper. `sidecars` has the metrics of each pod's sidecar, None when it is down."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path / "mesh.db", time.time)
        with self.store.transaction() as transaction:
            for resource in OBJECTS:
                transaction.put(resource)
        self.events = EventLog(time.time)
        self.sidecars: dict[str, SidecarMetrics | None] = {
            name: SidecarMetrics(time.time() - 5, pod=f"{name}-1", namespace="shop", deployment=name)
            for name in ("client", "web")
        }
        self.scraper = Scraper(self.live, self.metrics)
        self.plane = Plane(
            (decode(item) for item in self.store.list() if item["kind"] != "Deployment"),
            MeshSettings(mtls_mode="strict"),
            recorder=self.events,
            first_version=1000,
            probes=no_probes,
            register=lambda *_: None,
        )
        parts = MeshParts(
            name="demo",
            plane=self.plane,
            sidecars=self,
            objects=self.store,
            storage=self.store.problem,
            events=self.events,
            identity=cast(IdentityFacts, None),  # the overview does not use it
            settings=lambda: self.plane.settings,
            readiness=dict,
            versions={},
            clock=lambda: 1000.0,
        )
        self.overview = Overview(parts, self.scraper, lambda: [{"namespace": "shop", "pod": "web-1", "serial": "1f"}])

    def all(self) -> Iterable[SidecarReport]:
        return ()

    def live(self) -> Mapping[ObjectKey, str]:
        keys = (ObjectKey("Pod", "shop", f"{name}-1") for name in self.sidecars)
        return {key: resource["metadata"]["uid"] for key in keys if (resource := self.store.get(key)) is not None}

    def public_identity(self, pod: ObjectKey) -> None:
        return None

    async def metrics(self, pod: ObjectKey, timeout: float) -> str:
        sidecar = self.sidecars[pod.name.removesuffix("-1")]
        if sidecar is None:
            raise SidecarUnreachableError("connection refused")
        return sidecar.text()

    async def tap(self, taps: Mapping[ObjectKey, Tap]) -> None:
        raise NotImplementedError

    async def calls(self, count: int, *, mtls: bool = True) -> None:
        """The client calls the web server so often, and the sidecars are scraped."""
        client = self.sidecars["client"]
        assert client is not None
        client.requests(count, WEB_POD, mtls=mtls)
        await self.scraper.scrape()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterable[Mesh]:
    mesh = Mesh(tmp_path)
    yield mesh
    mesh.store.close()


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application()
    app.add_routes(mesh.overview.routes())
    async with TestClient(TestServer(app)) as found:
        yield found


async def test_the_graph_has_the_mesh_its_workloads_and_the_edges_between_them(mesh: Mesh) -> None:
    await mesh.calls(10)
    graph = await mesh.overview.graph()
    assert (graph["mesh"], graph["time"], graph["window"], graph["mtls_mode"]) == ("demo", 1000.0, 30.0, "strict")
    assert graph["sidecars"] == {"all": 2, "live": 2, "silent": 0, "silent_names": []}
    assert graph["counted"] == mesh.scraper.timeline.times
    client, web_ = graph["workloads"]
    assert (client["id"], client["pods"], client["ready"], client["mtls_modes"]) == (CLIENT_ID, 2, 1, ["strict"])
    assert (web_["id"], web_["pods"], web_["meshed"]) == (WEB_ID, 1, True)
    (edge,) = graph["edges"]
    assert (edge["from"], edge["to"], edge["security"]) == (CLIENT_ID, WEB_ID, "mtls")
    assert edge["rate"] == client["out"]["rate"] == web_["in"]["rate"] > 0


async def test_plaintext_is_seen_as_such(mesh: Mesh) -> None:
    await mesh.calls(10, mtls=False)
    (edge,) = (await mesh.overview.graph())["edges"]
    assert edge["security"] == "plaintext"


async def test_a_silent_sidecar_is_named_in_the_graph_and_at_its_pod(mesh: Mesh) -> None:
    mesh.sidecars["web"] = None
    await mesh.calls(1)
    assert (await mesh.overview.graph())["sidecars"]["silent_names"] == ["shop/web-1"]
    (member,) = (await mesh.overview.workload(GraphNode("shop", "deployment", "web")))["members"]
    assert member["silent"] == "connection refused"


async def test_a_workload_has_all_that_concerns_it(mesh: Mesh) -> None:
    await mesh.calls(10)
    mesh.events.record(ObjectKey("Pod", "shop", "web-1"), "Normal", "Started", "Started container app")
    mesh.events.record(ObjectKey("Pod", "shop", "client-1"), "Normal", "Started", "of the client")
    found = await mesh.overview.workload(GraphNode("shop", "deployment", "web"))
    assert (found["id"], found["services"], found["mtls_modes"]) == (WEB_ID, ["web"], ["strict"])
    (member,) = found["members"]
    assert (member["name"], member["mtls_mode"], member["identity"]) == ("web-1", "strict", {"serial": "1f"})
    assert [(policy["kind"], policy["in_force"], policy["says"]) for policy in found["policies"]] == [
        ("TrafficTarget", "True", "from client")
    ]
    assert [edge["from"] for edge in found["edges"]] == [CLIENT_ID]
    assert found["course"]["times"] == mesh.scraper.timeline.times
    assert found["course"]["in"]["rate"][-1] > 0
    assert found["course"]["out"]["rate"] == [0]
    assert [event["message"] for event in found["events"]] == ["Started container app"]


async def test_a_workload_without_pods_is_there_as_long_as_its_object_is(mesh: Mesh) -> None:
    mesh.plane.apply(Delete(ObjectKey("Pod", "shop", "client-1")))
    found = await mesh.overview.workload(GraphNode("shop", "deployment", "client"))
    assert (found["pods"], found["members"]) == (2, [])
    with mesh.store.transaction() as transaction:
        transaction.remove(ObjectKey("Deployment", "shop", "client"))
    with pytest.raises(StatusError, match='deployment "client" not found in namespace shop') as error:
        await mesh.overview.workload(GraphNode("shop", "deployment", "client"))
    assert error.value.reason == "NotFound"


async def test_events_are_the_newest_first_and_not_more_than_the_limit(
    mesh: Mesh, client: TestClient[web.Request, web.Application], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MOST_EVENTS", 3)
    for number in range(5):
        mesh.events.record(ObjectKey("Pod", "shop", "web-1"), "Normal", "Started", str(number))
    async with client.get("/mesh/events") as response:
        found: dict[str, Any] = await response.json()
    assert found["time"] == 1000.0
    assert [event["message"] for event in found["events"]] == ["4", "3", "2"]


async def test_the_graph_is_made_at_most_once_within_its_cache_time(
    mesh: Mesh, client: TestClient[web.Request, web.Application], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def edges() -> int:
        async with client.get("/mesh/graph") as response:
            assert response.content_type == "application/json"
            return len((await response.json())["edges"])

    monkeypatch.setattr(server, "_GRAPH_CACHE_SECONDS", 3600.0)
    assert await edges() == 0
    await mesh.calls(10)
    assert await edges() == 0
    monkeypatch.setattr(server, "_GRAPH_CACHE_SECONDS", 0.0)
    assert await edges() == 1


async def test_a_workload_is_served_at_its_path(mesh: Mesh, client: TestClient[web.Request, web.Application]) -> None:
    async with client.get("/mesh/workloads/shop/deployment/web") as response:
        assert (response.status, (await response.json())["id"]) == (200, WEB_ID)
