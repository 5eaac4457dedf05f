"""Where the reports of a node's sidecars go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nginx_mesh.api.kinds import decode
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Upsert
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.node import reporting
from nginx_mesh.node.reporting import Reporting
from nginx_mesh.protocol.report import Report
from tests.eventually import eventually

POD = ObjectKey("Pod", "shop", "web")
ID = "spiffe://example.org/ns/shop/sa/web"
REPORT = {
    "server": 1,
    "tapped": 1,
    "start_us": 1,
    "duration_us": 2,
    "status": 200,
    "http2": 0,
    "mtls": 1,
    "tries": 1,
    "client_port": 1,
}


def record() -> PodRecord:
    catalog = Catalog()
    metadata = {"name": POD.name, "namespace": POD.namespace}
    catalog.apply(Upsert(decode({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}})))
    found = catalog.topology.pod(POD)
    assert found is not None
    return found


class Node:
    """A node with a directory for each pod; `live` are the uids of pods with a sidecar."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.live: set[str] = set()
        self.tapped: list[tuple[ObjectKey, str, Report]] = []
        self.resolved = 0
        self.reporting = Reporting(
            "node-1",
            lambda uid: path / uid,
            live=lambda: self.live,
            find=lambda uid: (record(), ID) if uid in self.live else None,
            tapped=lambda *told: self.tapped.append(told),
            resolver=self._resolver,
        )

    def _resolver(self) -> Any:
        self.resolved += 1
        return lambda host: None

    def start_pod(self, uid: str) -> Path:
        (self.path / uid).mkdir()
        self.live.add(uid)
        return self.path / uid / "report.sock"

    def send(self, path: Path, report: dict[str, Any]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(msgspec.json.encode(report), str(path))


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(reporting, "_INTERVAL_SECONDS", 0.02)
    node = Node(tmp_path)
    task = asyncio.create_task(node.reporting.run())
    yield node
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await node.reporting.close()


async def test_a_request_that_somebody_watches_is_told_with_its_pod_and_identity(node: Node) -> None:
    path = node.start_pod("u")
    await eventually(path.exists, "the node listens to the pod")
    node.send(path, REPORT)
    await eventually(lambda: node.tapped, "the report arrives")
    assert node.tapped[0][:2] == (POD, ID)


async def test_a_request_that_nobody_watches_is_not_told(node: Node) -> None:
    path = node.start_pod("u")
    await eventually(path.exists, "the node listens to the pod")
    node.send(path, REPORT | {"tapped": 0})
    node.send(path, REPORT)
    await eventually(lambda: node.tapped, "the report arrives")
    assert [report.tapped for _, _, report in node.tapped] == [1]


async def test_what_is_no_report_is_dropped_and_the_next_one_counts(node: Node) -> None:
    path = node.start_pod("u")
    await eventually(path.exists, "the node listens to the pod")
    node.send(path, {"server": "perhaps"})
    node.send(path, REPORT)
    await eventually(lambda: node.tapped, "the report arrives")
    assert len(node.tapped) == 1


async def test_a_pod_without_a_directory_holds_up_no_other(node: Node) -> None:
    node.live.add("without a directory")
    path = node.start_pod("u")
    await eventually(path.exists, "the node listens to the pod")
    node.send(path, REPORT)
    await eventually(lambda: node.tapped, "the report arrives")


async def test_no_exporter_is_made_before_the_settings_name_a_collector(node: Node) -> None:
    node.reporting.configure(MeshSettings())
    path = node.start_pod("u")
    await eventually(path.exists, "the node listens to the pod")
    node.send(path, REPORT | {"trace": "1" * 32, "span": "1" * 16})
    await eventually(lambda: node.tapped, "the report arrives")
    assert node.resolved == 0
