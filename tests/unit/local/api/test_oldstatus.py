"""Pods that a daemon stored before their status had the shape of Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.kinds import decode
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.podstatus import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
)
from nginx_mesh.local.api.oldstatus import with_current_status
from nginx_mesh.local.api.store import Store


def pod(*statuses: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "a"}]},
        "status": {"phase": "Running", "podIP": "10.244.0.9", "containerStatuses": list(statuses), **status},
    }


CRASHED = ContainerState(terminated=ContainerStateTerminated(exit_code=7))


@pytest.mark.parametrize(
    ("old", "state", "last"),
    [
        ({}, ContainerState(waiting=ContainerStateWaiting()), ContainerState()),
        ({"state": "running"}, ContainerState(running=ContainerStateRunning()), ContainerState()),
        (
            {"reason": "CrashLoopBackOff", "message": "m", "exitCode": 7},
            ContainerState(waiting=ContainerStateWaiting(reason="CrashLoopBackOff", message="m")),
            CRASHED,
        ),
        (
            {"state": "terminated", "reason": "Completed", "exitCode": 0},
            ContainerState(terminated=ContainerStateTerminated(exit_code=0, reason="Completed")),
            ContainerState(),
        ),
    ],
)
def test_what_an_earlier_daemon_stored_is_read(
    tmp_path: Path, old: dict[str, Any], state: ContainerState, last: ContainerState
) -> None:
    status = {"name": "a", "ready": True, "restartCount": 2, **old}
    store = Store(tmp_path / "store.db", lambda: 0.0)
    with store.transaction() as tx:
        tx.put(pod(status, initContainerStatuses=[status]))
    store.close()

    found = Store(tmp_path / "store.db", lambda: 0.0).get(ObjectKey("Pod", "default", "web"))
    assert found is not None
    read = decode(found)
    assert isinstance(read, Pod)
    expected = ContainerStatus(name="a", ready=True, restart_count=2, state=state, last_state=last)
    assert (read.status.container_statuses, read.status.init_container_statuses) == ([expected], [expected])
    assert (read.status.phase, read.status.ips) == ("Running", ("10.244.0.9",))


def test_what_has_the_shape_of_today_stays_as_it_is() -> None:
    current = pod({"name": "a", "ready": True, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    assert with_current_status(current) == current
    service = {"kind": "Service", "metadata": {"name": "a"}, "status": {"containerStatuses": [{"state": "running"}]}}
    assert with_current_status(service) == service
