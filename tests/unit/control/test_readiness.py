"""What `up` says is in the way."""

from __future__ import annotations

from typing import Any

import pytest

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.control.readiness import unready


def pod(
    name: str = "web", *, owner: dict[str, str] | None = None, ready: bool = False, **status: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "default", "uid": f"u-{name}"}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"kind": "Pod", "metadata": metadata, "status": {"conditions": conditions, **status}}


def deployment(**status: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, **status},
    }


def no_warning(_: ObjectKey) -> str:
    return ""


@pytest.mark.parametrize(
    "resource",
    [
        pod(ready=True, phase="Running"),
        pod(phase="Succeeded"),
        pod(phase="Failed", owner={"kind": "Job", "uid": "j"}),
        deployment(),
    ],
)
def test_nothing_is_in_the_way_of_what_runs(resource: dict[str, Any]) -> None:
    assert unready([resource], no_warning) == []


def test_a_pod_on_its_way_out_is_not_waited_for() -> None:
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:20Z"
    assert unready([going], no_warning) == []


def in_the_way(state: dict[str, Any]) -> dict[str, Any]:
    ok = {"name": "ok", "ready": True, "state": {"running": {}}}
    return pod(phase="Pending", containerStatuses=[ok, {"name": "a", "ready": False, "state": state}])


@pytest.mark.parametrize(
    ("state", "reason", "hopeless"),
    [
        (
            {"waiting": {"reason": "ImageNotRunnable", "message": "spec.containers[0].command: say which"}},
            "container a: ImageNotRunnable: spec.containers[0].command: say which",
            True,
        ),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "container a: CrashLoopBackOff", False),
        ({"terminated": {"reason": "Error", "exitCode": 3}}, "container a: Error: exit code 3", False),
        ({"running": {}}, "container a: running, but not ready", False),
    ],
)
def test_the_container_in_the_way_is_named_with_its_reason(state: dict[str, Any], reason: str, hopeless: bool) -> None:
    (found,) = unready([in_the_way(state)], no_warning)
    assert found.reason == reason
    assert (found.container, found.hopeless) == ("a", hopeless)


@pytest.mark.parametrize(
    ("warning", "reason"),
    [
        ("container a: Readiness probe failed: refused", "running, but not ready: Readiness probe failed: refused"),
        ("container b: Readiness probe failed: refused", "running, but not ready"),
        ("container a: exit code 1", "running, but not ready"),
    ],
)
def test_a_container_that_is_not_ready_is_named_with_what_its_probe_found(warning: str, reason: str) -> None:
    (found,) = unready([in_the_way({"running": {}})], lambda _: warning)
    assert found.reason == f"container a: {reason}"


def test_a_workload_is_named_only_when_none_of_its_pods_tells_why() -> None:
    owner = {"kind": "Deployment", "uid": "d"}
    waiting = pod("web-1", owner=owner, phase="Pending")
    incomplete = deployment(replicas=1, readyReplicas=0)
    assert [entry.key.kind for entry in unready([incomplete, waiting], no_warning)] == ["Pod"]
    (found,) = unready([incomplete], lambda _: "Error creating pod: no")
    assert (str(found.key), found.reason) == (
        "Deployment default/web",
        "0 of its pods are ready; Error creating pod: no",
    )


def test_a_failed_job_is_hopeless() -> None:
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "gave up"}
    job = {
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "default", "uid": "j"},
        "spec": {},
        "status": {"conditions": [condition]},
    }
    (found,) = unready([job], no_warning)
    assert (found.reason, found.hopeless) == ("BackoffLimitExceeded: gave up", True)
