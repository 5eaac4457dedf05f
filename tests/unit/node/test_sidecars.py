"""The sidecars of a node: from an identity and the control plane's state to a sidecar that has both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.node.sidecars import NodeSidecars
from nginx_mesh.protocol.control import SidecarUnreachableError
from nginx_mesh.protocol.explain import Question
from nginx_mesh.protocol.state import Update
from tests.eventually import eventually
from tests.unit.node.sidecar import PACE, POD, Author, Sidecar, identity


class Plane:
    """A source of states that keeps what its node reports."""

    def __init__(self) -> None:
        self.author = Author()
        self.reports: list[tuple[str, object]] = []

    def update_for(self, pod: ObjectKey, base: int | None) -> Update | None:
        return self.author(pod, base)

    def acknowledged(self, pod: ObjectKey, version: int | None) -> None:
        self.reports.append(("acknowledged", version))

    def refused(self, pod: ObjectKey, reason: str) -> None:
        self.reports.append(("refused", reason))

    def dropped(self, pod: ObjectKey) -> None:
        self.reports.append(("dropped", pod))


class Node:
    """A node with one pod, whose sidecar does not run yet."""

    def __init__(self, path: Path) -> None:
        self.plane = Plane()
        self.sidecar = Sidecar(path / "control.sock")
        self.live: list[str] = []
        self.sidecars = NodeSidecars(
            self.plane,
            control_socket=lambda uid: path / "control.sock",
            live=self.live.append,
            first_version=5000,
            pace=PACE,
        )


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    yield node
    await node.sidecars.close()
    await node.sidecar.kill()


async def test_a_sidecar_gets_nothing_before_its_pod_has_an_identity(node: Node) -> None:
    await node.sidecar.start()
    node.sidecars.serve(POD, "u", had_state=False)
    await asyncio.sleep(0.05)
    assert node.sidecar.updates == []
    assert next(node.sidecars.all()).standing is None
    node.sidecars.set_identity(POD, identity())
    await eventually(lambda: node.live == ["u"], "the sidecar has its first state")
    assert "identity" in node.sidecar.state
    assert ("acknowledged", 1000) in node.plane.reports


async def test_the_control_plane_hears_its_own_versions_whatever_the_sidecar_has(node: Node) -> None:
    await node.sidecar.start()
    node.sidecars.serve(POD, "u", had_state=False)
    node.sidecars.set_identity(POD, identity())
    await eventually(lambda: node.live, "the sidecar has its first state")
    node.sidecars.set_identity(POD, identity("renewed"))
    await eventually(lambda: node.sidecar.version == 5002, "the sidecar has version 5002")
    node.plane.author.grow()
    node.sidecars.changed({POD})
    await eventually(lambda: node.plane.reports[-1] == ("acknowledged", 1001), lambda: f"{node.plane.reports}")
    standing = node.sidecars.standing(POD)
    assert standing is not None
    assert (standing.state, standing.version) == ("synced", 1001)
    assert node.sidecar.version == 5003


async def test_a_sidecar_that_lost_its_state_is_reported_and_given_it_again(node: Node) -> None:
    await node.sidecar.start()
    node.sidecars.serve(POD, "u", had_state=False)
    node.sidecars.set_identity(POD, identity())
    await eventually(lambda: node.live, "the sidecar has its first state")
    await node.sidecar.kill()
    node.plane.reports.clear()
    await node.sidecar.start()
    await eventually(lambda: node.plane.reports[-1:] == [("acknowledged", 1000)], lambda: f"{node.plane.reports}")
    assert ("acknowledged", None) in node.plane.reports
    assert "identity" in node.sidecar.state


async def test_one_that_had_a_state_before_this_process_is_live_at_once(node: Node) -> None:
    node.sidecars.serve(POD, "u", had_state=True)
    assert node.sidecars.live() == {POD: "u"}
    assert node.plane.reports == [("acknowledged", None)]


async def test_a_refusal_is_reported_and_the_sidecar_is_not_live(node: Node) -> None:
    await node.sidecar.start()
    node.sidecar.malformed["cluster/a/b:80"] = "endpoints: bad"
    node.sidecars.serve(POD, "u", had_state=False)
    node.sidecars.set_identity(POD, identity())
    await eventually(lambda: node.plane.reports, "a report to the control plane")
    kind, reason = node.plane.reports[0]
    assert kind == "refused"
    assert "cluster/a/b:80: endpoints: bad" in str(reason)
    assert node.sidecars.live() == {}


async def test_a_pod_that_is_gone_is_asked_and_served_no_more(node: Node) -> None:
    await node.sidecar.start()
    node.sidecars.serve(POD, "u", had_state=False)
    node.sidecars.set_identity(POD, identity())
    await eventually(lambda: node.live, "the sidecar has its first state")
    await node.sidecars.drop(POD, "an earlier pod of this name")
    assert node.sidecars.live() == {POD: "u"}
    await node.sidecars.drop(POD, "u")
    assert node.plane.reports[-1] == ("dropped", POD)
    assert node.sidecars.live() == {}
    with pytest.raises(SidecarUnreachableError):
        await node.sidecars.metrics(POD, 1.0)


async def test_a_pod_may_go_before_it_ever_had_an_identity(node: Node) -> None:
    node.sidecars.serve(POD, "u", had_state=False)
    await asyncio.wait_for(node.sidecars.drop(POD, "u"), 5)
    assert list(node.sidecars.all()) == []


async def test_a_sidecar_without_a_state_cannot_be_asked(node: Node) -> None:
    node.sidecars.serve(POD, "u", had_state=False)
    question = Question(direction="outbound", ip="10.0.0.1", port=80, source="10.0.0.2")
    with pytest.raises(SidecarUnreachableError, match="first state"):
        await node.sidecars.explain_outgoing(POD, question)
