"""The pods of a node that have an identity: from their provider to their sidecars."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.agent.provider import OnUpdate
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.identity.common.workload import WorkloadSource
from nginx_mesh.node.sidecars import NodeSidecars
from nginx_mesh.node.workloads import Workloads
from nginx_mesh.protocol.state import Identity, Update
from tests.eventually import eventually
from tests.unit.node.sidecar import PACE, POD, Author, Sidecar, identity


class Provider:
    """Issues what a test says."""

    problem = ""

    def __init__(self) -> None:
        self.update: OnUpdate | None = None
        self.unregistered: list[str] = []

    def register(self, workload: str, spiffe_id: SpiffeId, dns_names: Sequence[str] = ()) -> None:
        raise AssertionError("the control plane registers")

    def unregister(self, workload: str) -> None:
        self.unregistered.append(workload)

    def identity(self, workload: str) -> Identity | None:
        return None

    def svid_status(self, workload: str) -> SvidStatus | None:
        return None

    def source(self, workload: str) -> WorkloadSource:
        raise NotImplementedError

    def node_source(self) -> WorkloadSource:
        raise NotImplementedError

    async def run(self, on_update: OnUpdate) -> None:
        self.update = on_update
        await asyncio.Event().wait()


class Plane:
    """A source of states that nobody reports to."""

    def __init__(self) -> None:
        self._author = Author()

    def update_for(self, pod: ObjectKey, base: int | None) -> Update | None:
        return self._author(pod, base)

    def acknowledged(self, pod: ObjectKey, version: int | None) -> None: ...

    def refused(self, pod: ObjectKey, reason: str) -> None: ...

    def dropped(self, pod: ObjectKey) -> None: ...


class Node:
    def __init__(self, path: Path) -> None:
        self.sidecar = Sidecar(path / "control.sock")
        self.provider = Provider()
        self.sidecars = NodeSidecars(Plane(), control_socket=lambda uid: path / "control.sock", pace=PACE)
        self.workloads = Workloads(self.provider, self.sidecars)

    def issue(self, uid: str, svid: Identity | None) -> None:
        assert self.provider.update is not None
        self.provider.update(uid, svid)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.sidecar.start()
    node.workloads.start()
    await eventually(lambda: node.provider.update, "the provider runs")
    yield node
    await node.workloads.close()
    await node.sidecars.close()
    await node.sidecar.kill()


async def test_an_issued_identity_reaches_the_sidecar_of_its_pod(node: Node) -> None:
    node.workloads.serve(POD, "u", had_state=False)
    node.issue("u", identity())
    await eventually(lambda: "identity" in node.sidecar.state, "the sidecar has the identity")
    assert node.workloads.pod("u") == POD


async def test_an_identity_that_is_taken_away_leaves_the_sidecar(node: Node) -> None:
    node.workloads.serve(POD, "u", had_state=False)
    node.issue("u", identity())
    await eventually(lambda: "identity" in node.sidecar.state, "the sidecar has the identity")
    node.issue("u", None)
    await eventually(lambda: "identity" not in node.sidecar.state, "the sidecar has no identity")


async def test_identities_of_pods_without_a_sidecar_are_passed_over(node: Node) -> None:
    node.issue("somebody else", identity())
    await asyncio.sleep(0.02)
    assert node.sidecar.updates == []


async def test_a_pod_that_is_gone_loses_its_identity(node: Node) -> None:
    node.workloads.serve(POD, "u", had_state=False)
    node.issue("u", identity())
    await eventually(lambda: "identity" in node.sidecar.state, "the sidecar has the identity")
    await node.workloads.drop(POD, "u")
    assert node.provider.unregistered == ["u"]
    assert node.workloads.pod("u") is None
    assert list(node.sidecars.all()) == []
