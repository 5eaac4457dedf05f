"""Restarts, the status of a pod, log rotation, paths: rules without processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.annotations import SIDECAR_CONTAINER
from nginx_mesh.api.containers import Container
from nginx_mesh.api.meta import ObjectMeta
from nginx_mesh.api.pods import Pod, PodSpec
from nginx_mesh.api.podstatus import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    PodStatus,
)
from nginx_mesh.local.node.podstatus import pod_status
from nginx_mesh.local.node.restarts import Backoff, BackoffSettings, should_restart
from nginx_mesh.local.node.rotation import rotate
from nginx_mesh.local.paths import MeshPaths, is_short_id, short_id


@pytest.mark.parametrize(
    ("policy", "after_success", "after_failure"),
    [("Always", True, True), ("OnFailure", False, True), ("Never", False, False)],
)
def test_restart_policies(policy: str, after_success: bool, after_failure: bool) -> None:
    assert (should_restart(policy, 0), should_restart(policy, 1)) == (after_success, after_failure)


def test_backoff_is_immediate_then_doubles_to_its_cap_and_survives_a_daemon() -> None:
    backoff = Backoff(BackoffSettings())
    assert [backoff.next(1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert Backoff(BackoffSettings(), delay=20.0).next(1) == 40
    assert Backoff(BackoffSettings(), delay=300.0).next(600) == 0


@given(st.lists(st.floats(0, 599)))
def test_backoff_never_shrinks_while_runs_are_short(runs: list[float]) -> None:
    backoff = Backoff(BackoffSettings())
    delays = [backoff.next(run) for run in runs]
    assert delays == sorted(delays)


POD = Pod(metadata=ObjectMeta(name="p"), spec=PodSpec(containers=[Container(name="a")]))


WAITING = ContainerState(waiting=ContainerStateWaiting())
RUNNING = ContainerState(running=ContainerStateRunning())


def ended(exit_code: int) -> ContainerState:
    return ContainerState(terminated=ContainerStateTerminated(exit_code=exit_code))


def container(state: ContainerState = RUNNING, name: str = "a", **fields: Any) -> ContainerStatus:
    return ContainerStatus(name=name, state=state, **fields)


def status_of(*containers: ContainerStatus, **fields: Any) -> PodStatus:
    arguments: dict[str, Any] = {"initial": [], "ended": False, "terminating": False, "start_time": "", **fields}
    return pod_status(POD, containers=containers, host_ip="10.244.0.1", **arguments)


@pytest.mark.parametrize(
    ("containers", "over", "phase"),
    [
        ([container(WAITING)], False, "Pending"),
        ([container()], False, "Running"),
        ([container(WAITING, restart_count=1)], False, "Running"),
        ([container(WAITING, last_state=ended(1))], False, "Running"),
        ([container(ended(0))], True, "Succeeded"),
        ([container(ended(2))], True, "Failed"),
        ([container(ended(0)), container(ended(137), SIDECAR_CONTAINER)], True, "Succeeded"),
    ],
)
def test_phases(containers: list[ContainerStatus], over: bool, phase: str) -> None:
    assert status_of(*containers, ended=over).phase == phase


def test_a_pod_is_ready_when_all_containers_are_and_it_is_not_going() -> None:
    ready, unready = container(ready=True), container(name="b")
    assert status_of(ready).ready
    assert not status_of(ready, terminating=True).ready
    status = status_of(ready, unready)
    assert not status.ready
    assert status.conditions[-1].message == "containers with unready status: [b]"


def test_an_init_container_is_ready_when_it_has_done_its_work() -> None:
    done, failed = container(ended(0), "done"), container(ended(1), "failed")
    status = status_of(container(WAITING), initial=[done, failed])
    assert [one.ready for one in status.init_container_statuses] == [True, False]
    assert [c.status for c in status.conditions if c.type == "Initialized"] == ["False"]
    assert [c.status for c in status_of(container(), initial=[done]).conditions if c.type == "Initialized"] == ["True"]


def test_a_pod_says_which_addresses_its_host_has() -> None:
    status = status_of(container())
    assert (status.host_ip, status.host_ips) == ("10.244.0.1", [HostIP(ip="10.244.0.1")])


def test_rotation_moves_what_is_too_much_and_keeps_writers_going(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"12345")
        assert not rotate(path, 5)
        writer.write(b"6")
        assert rotate(path, 5)
        writer.write(b"7")
    assert (path.with_name("app.log.1").read_bytes(), path.read_bytes()) == (b"123456", b"7")
    assert not rotate(tmp_path / "none.log", 5)


def test_rotation_drops_what_cannot_be_copied(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"123456")
    path.with_name("app.log.1").mkdir()
    assert rotate(path, 5)
    assert path.read_bytes() == b""


@given(st.text())
def test_short_ids_are_fit_for_names_of_files_and_interfaces(uid: str) -> None:
    assert is_short_id(short_id(uid)) and short_id(uid) == short_id(uid)


def test_sockets_have_room_for_their_paths() -> None:
    assert len(str(MeshPaths("x" * 40, Path("/")).pod_socket_dir("uid") / "control.sock")) <= 107
    with pytest.raises(ValueError, match="unix socket"):
        MeshPaths("x" * 40, Path("/" + "y" * 60))


@pytest.mark.parametrize("root", ["relative", "/with space", "/co:lon", "/com,ma"])
def test_a_root_that_mounts_cannot_take_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="NGINX_MESH_ROOT"):
        MeshPaths("m", Path(root))


def test_meshes_whose_names_begin_alike_have_nothing_in_common() -> None:
    one, two = MeshPaths("a", Path("/")), MeshPaths("a-b", Path("/"))
    assert not two.node_netns.startswith(f"{one.node_netns}.")
    assert not two.run.is_relative_to(one.run)


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a.b", "x" * 41])
def test_a_mesh_name_cannot_reach_outside(name: str) -> None:
    with pytest.raises(ValueError, match="mesh name"):
        MeshPaths(name)
