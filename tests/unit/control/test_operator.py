"""The control plane's API for operators and for Prometheus, over a real plane and store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application
from prometheus_client.registry import Collector

from nginx_mesh.api.annotations import INJECTED, SIDECAR_CONTAINER, STATUS
from nginx_mesh.api.kinds import decode
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.compile.inbound import no_probes
from nginx_mesh.control.operator import MeshParts, Operator
from nginx_mesh.control.plane import Plane
from nginx_mesh.control.targets import Targets
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.local.api.events import EventLog
from nginx_mesh.local.api.store import Store
from nginx_mesh.observe import Part
from nginx_mesh.protocol.control import SidecarUnreachableError, Tap
from nginx_mesh.protocol.standing import SidecarReport, SidecarStanding

NOW = 1_700_000_000.0
WEB, API = (ObjectKey("Pod", "shop", name) for name in ("web", "api"))


def pod(name: str, ip: str) -> Resource:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}, "annotations": {STATUS: INJECTED}},
        "spec": {
            "containers": [
                {"name": "app", "ports": [{"containerPort": 80, "name": "http"}]},
                {"name": SIDECAR_CONTAINER},
            ]
        },
        "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]},
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"port": 80}]},
}


class Identity:
    """An authority of which little is known."""

    problem = ""

    def facts(self) -> dict[str, Any]:
        return {
            "provider": "nginx-mesh",
            "address": "",
            "trust_domain": "example.org",
            "delayed": "",
            "authorities": [],
        }

    def svid_status(self, uid: str) -> SvidStatus | None:
        return SvidStatus("spiffe://example.org/ns/shop/sa/default", (), "1f", "ca", NOW - 600, NOW + 3000, NOW + 1200)

    def parts(self) -> Mapping[str, Part]:
        return {"identity": lambda: self.problem}

    def collectors(self) -> Sequence[Collector]:
        return []


class Home:
    """A mesh of two pods, whose sidecars' standings and metrics tests change."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path / "mesh.db", lambda: NOW - 300)
        with self.store.transaction() as transaction:
            for resource in (pod("web", "10.0.0.1"), pod("api", "fd00::2"), SERVICE):
                transaction.put(resource)
        self.events = EventLog(lambda: NOW)
        self.identity = Identity()
        self.plane = Plane(
            [decode(item) for item in self.store.list()],
            MeshSettings(),
            recorder=self.events,
            first_version=1000,
            probes=no_probes,
            register=lambda *_: None,
        )
        self.standings = {key: SidecarStanding("synced", self.plane.version) for key in (WEB, API)}
        self.exposed: dict[ObjectKey, str] = {WEB: "up 1\n"}
        self.parts = MeshParts(
            name="demo",
            plane=self.plane,
            sidecars=self,
            objects=self.store,
            storage=self.store.problem,
            events=self.events,
            identity=self.identity,
            settings=lambda: self.plane.settings,
            readiness=lambda: {"pods": 2, "ready": 2, "waiting": []},
            versions={"nginx-mesh-test": "1"},
            clock=lambda: NOW,
        )

    def all(self) -> list[SidecarReport]:
        return [SidecarReport(key, key.name, True, standing) for key, standing in self.standings.items()]

    def live(self) -> dict[ObjectKey, str]:
        return {key: key.name for key in self.standings}

    def public_identity(self, key: ObjectKey) -> dict[str, Any] | None:
        return {"spiffe_id": "spiffe://example.org/ns/shop/sa/default", "svid": "PEM"} if key == WEB else None

    async def metrics(self, key: ObjectKey, timeout: float) -> str:
        if key not in self.exposed:
            raise SidecarUnreachableError("no such file")
        return self.exposed[key]

    async def tap(self, taps: Mapping[ObjectKey, Tap]) -> None:
        raise AssertionError("operators do not tap")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
async def api(home: Home) -> AsyncIterator[TestClient[Any, Any]]:
    app = Application()
    app.add_routes(Operator(home.parts).routes())
    app.add_routes(Targets(home.plane.catalog.topology, home).routes())
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_mesh_in_which_all_is_synced_is_well(api: TestClient[Any, Any], home: Home) -> None:
    status = await (await api.get("/mesh/status")).json()
    assert (status["well"], status["problems"], status["warnings"]) == (True, [], [])
    assert status["sidecars"]["states"]["synced"] == 2
    assert status["sidecars"]["state_version"] == home.plane.version


async def test_a_sidecar_that_refuses_its_state_is_a_problem(api: TestClient[Any, Any], home: Home) -> None:
    home.standings[WEB] = SidecarStanding("refused", 7, "it refused settings: bad")
    status = await (await api.get("/mesh/status")).json()
    assert not status["well"]
    assert [problem["about"] for problem in status["problems"]] == ["sidecar of shop/web"]


async def test_a_part_that_is_not_ready_makes_the_process_unready(api: TestClient[Any, Any], home: Home) -> None:
    assert (await api.get("/readyz")).status == 200
    home.identity.problem = "the identity server does not answer"
    assert (await api.get("/readyz")).status == 503
    status = await (await api.get("/mesh/status")).json()
    assert status["problems"][0]["message"] == "the identity server does not answer"


async def test_a_pod_that_is_being_deleted_is_of_no_interest(api: TestClient[Any, Any], home: Home) -> None:
    with home.store.transaction() as transaction:
        resource = home.store.get(WEB)
        assert resource is not None
        metadata = {**resource["metadata"], "deletionTimestamp": "2024-01-01T00:00:00Z"}
        transaction.put({**resource, "metadata": metadata})
    status = await (await api.get("/mesh/status")).json()
    assert [item["pod"] for item in status["sidecars"]["items"]] == ["api"]


async def test_services_of_one_namespace_or_of_all(api: TestClient[Any, Any]) -> None:
    assert [found["name"] for found in await (await api.get("/mesh/services")).json()] == ["web"]
    assert await (await api.get("/mesh/services?namespace=other")).json() == []


async def test_versions_and_settings(api: TestClient[Any, Any]) -> None:
    assert await (await api.get("/mesh/version")).json() == {"nginx-mesh-test": "1"}
    assert "permissive" in json.dumps(await (await api.get("/mesh/config")).json())


async def test_states_hold_each_sidecars_own_entries_and_the_shared_ones_once(api: TestClient[Any, Any]) -> None:
    text = await (await api.get("/mesh/supportpkg")).text()
    files = {line["name"]: line["content"] for line in map(json.loads, text.splitlines())}
    assert set(files) == {"pods/shop/web/state.json", "pods/shop/api/state.json", "states/permissive.json"}
    assert {"settings", "inbound/80"} <= files["pods/shop/web/state.json"].keys()
    assert "destination/10.96.0.1:80" in files["states/permissive.json"]


async def test_states_hold_the_public_part_of_identities_and_no_keys(api: TestClient[Any, Any]) -> None:
    text = await (await api.get("/mesh/supportpkg")).text()
    files = {line["name"]: line["content"] for line in map(json.loads, text.splitlines())}
    assert files["pods/shop/web/state.json"]["identity"]["svid"] == "PEM"
    assert "identity" not in files["pods/shop/api/state.json"]
    assert '"key"' not in text


async def test_what_exists_is_measured_when_prometheus_asks(api: TestClient[Any, Any], home: Home) -> None:
    home.standings[API] = SidecarStanding("unreachable", None, "no such file")
    text = await (await api.get("/metrics")).text()
    assert 'nginx_mesh_sidecars{state="synced"} 1.0' in text
    assert 'nginx_mesh_sidecars{state="unreachable"} 1.0' in text
    assert 'nginx_mesh_objects{kind="Pod"} 2.0' in text
    assert "nginx_mesh_svid_first_expiry_timestamp_seconds 1.700003e+09" in text


async def test_live_sidecars_are_targets_also_with_ipv6_addresses(api: TestClient[Any, Any]) -> None:
    targets = await (await api.get("/mesh/targets")).json()
    assert [target["targets"] for target in targets] == [["10.0.0.1:8887"], ["[fd00::2]:8887"]]
    assert targets[0]["labels"]["pod"] == "web"


async def test_metrics_of_one_sidecar(api: TestClient[Any, Any]) -> None:
    assert await (await api.get("/mesh/pods/shop/web/metrics")).text() == "up 1\n"
    silent = await api.get("/mesh/pods/shop/api/metrics")
    assert (silent.status, await silent.text()) == (503, "the sidecar does not answer: no such file")
    assert (await api.get("/mesh/pods/shop/nobody/metrics")).status == 404
