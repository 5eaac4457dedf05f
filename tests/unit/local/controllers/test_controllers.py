"""What the workload controllers decide, run against a model of pods without any process."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_mesh.control.readiness import rolled_out
from nginx_mesh.local.controllers.daemonset import plan_daemonset
from nginx_mesh.local.controllers.deployment import plan_deployment, rolling_bounds
from nginx_mesh.local.controllers.job import plan_job
from nginx_mesh.local.controllers.plan import PodView, WorkloadPlan, template_hash
from nginx_mesh.local.controllers.replicaset import plan_replicaset
from nginx_mesh.local.controllers.statefulset import plan_statefulset


def workload(kind: str, *, command: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "generation": 1},
        "spec": {
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"command": [command]}]}},
            **spec,
        },
    }


class Cluster:
    """Pods that do what plans say; they become ready or go away only when told."""

    def __init__(self) -> None:
        self.pods: dict[str, PodView] = {}
        self._names = itertools.count()

    def apply(self, plan: WorkloadPlan) -> None:
        for name in plan.delete:
            self.pods[name] = replace(self.pods[name], terminating=True, ready=False)
        for pod in plan.create:
            number = next(self._names)
            metadata = pod["metadata"]
            name = metadata.get("name") or f"{metadata['generateName']}{number}"
            assert name not in self.pods
            self.pods[name] = PodView(name=name, labels=metadata["labels"], created=f"{number:09}")

    def ready(self, *names: str) -> None:
        for name in names or [n for n, pod in self.pods.items() if not pod.terminating]:
            self.pods[name] = replace(self.pods[name], ready=True, phase="Running")

    def collect(self) -> None:
        self.pods = {name: pod for name, pod in self.pods.items() if not pod.terminating}

    def views(self) -> list[PodView]:
        return list(self.pods.values())


def serving(pods: list[PodView]) -> int:
    return sum(pod.ready and not pod.terminating for pod in pods)


def settle(cluster: Cluster, planner: Any, owner: dict[str, Any]) -> None:
    for _ in range(100):
        plan = planner(owner, cluster.views(), 0.0)
        owner["status"] = plan.status
        if not plan.create and not plan.delete and all(pod.ready for pod in cluster.views()):
            return
        cluster.apply(plan)
        cluster.collect()
        cluster.ready()
    raise AssertionError("never settled")


def test_a_deployment_gets_its_pods_owned_and_labelled() -> None:
    plan = plan_deployment(workload("Deployment", replicas=2), [], 0.0)
    assert len(plan.create) == 2
    pod = plan.create[0]
    revision = pod["metadata"]["labels"]["pod-template-hash"]
    assert pod["metadata"]["generateName"] == f"web-{revision}-"
    assert pod["metadata"]["labels"]["app"] == "web"
    assert pod["metadata"]["ownerReferences"] == [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u-1", "controller": True}
    ]


@pytest.mark.parametrize(
    ("rolling", "replicas", "expected"),
    [
        ({}, 4, (1, 1)),
        ({}, 1, (1, 0)),
        ({}, 5, (2, 1)),
        ({"maxSurge": 0, "maxUnavailable": 0}, 4, (0, 1)),
        ({"maxSurge": 0, "maxUnavailable": "50%"}, 3, (0, 1)),
        ({"maxSurge": "100%", "maxUnavailable": 0}, 3, (3, 0)),
    ],
)
def test_rolling_bounds_round_as_kubernetes_does(
    rolling: dict[str, Any], replicas: int, expected: tuple[int, int]
) -> None:
    assert rolling_bounds(rolling, replicas) == expected


@settings(deadline=None)
@given(
    replicas=st.integers(1, 12),
    surge=st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda n: f"{n}%")),
    unavailable=st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda n: f"{n}%")),
    data=st.data(),
)
def test_a_rolling_update_stays_within_its_bounds_and_ends(
    replicas: int, surge: int | str, unavailable: int | str, data: st.DataObject
) -> None:
    strategy = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    cluster = Cluster()
    settle(cluster, plan_deployment, workload("Deployment", replicas=replicas, strategy=strategy))
    updated = workload("Deployment", command="b", replicas=replicas, strategy=strategy)
    most, least = rolling_bounds(strategy["rollingUpdate"], replicas)
    for _ in range(200):
        plan = plan_deployment(updated, cluster.views(), 0.0)
        cluster.apply(plan)
        assert serving(cluster.views()) >= replicas - least
        assert sum(not pod.terminating for pod in cluster.views()) <= replicas + most
        waiting = [pod.name for pod in cluster.views() if not pod.ready and not pod.terminating]
        if waiting:
            cluster.ready(*data.draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True)))
        if data.draw(st.booleans()):
            cluster.collect()
        updated["status"] = plan.status
        if rolled_out(updated):
            break
    cluster.collect()
    revision = template_hash(updated)
    assert [pod.labels["pod-template-hash"] for pod in cluster.views()] == [revision] * replicas


def test_scaling_down_gives_up_pods_that_serve_nothing_first() -> None:
    cluster = Cluster()
    cluster.apply(plan_deployment(workload("Deployment", replicas=3), [], 0.0))
    first, _, third = cluster.pods
    cluster.ready(first, third)
    plan = plan_deployment(workload("Deployment", replicas=2), cluster.views(), 0.0)
    assert len(plan.delete) == 1
    assert not cluster.pods[plan.delete[0]].ready


def test_scaling_down_gives_up_the_youngest_of_equals() -> None:
    cluster = Cluster()
    settle(cluster, plan_deployment, workload("Deployment", replicas=3))
    plan = plan_deployment(workload("Deployment", replicas=1), cluster.views(), 0.0)
    assert plan.delete == list(reversed(cluster.pods))[:2]


def test_a_broken_revision_is_replaced_without_touching_the_serving_pods() -> None:
    cluster = Cluster()
    settle(cluster, plan_deployment, workload("Deployment", replicas=2))
    serving_pods = set(cluster.pods)
    cluster.apply(plan_deployment(workload("Deployment", command="broken", replicas=2), cluster.views(), 0.0))
    (broken,) = set(cluster.pods) - serving_pods
    plan = plan_deployment(workload("Deployment", command="fixed", replicas=2), cluster.views(), 0.0)
    assert plan.delete == [broken]


def test_recreate_waits_for_every_old_pod_to_be_gone() -> None:
    cluster = Cluster()
    settle(cluster, plan_deployment, workload("Deployment", replicas=2))
    updated = workload("Deployment", command="b", replicas=2, strategy={"type": "Recreate"})
    plan = plan_deployment(updated, cluster.views(), 0.0)
    assert (len(plan.create), len(plan.delete)) == (0, 2)
    cluster.apply(plan)
    assert plan_deployment(updated, cluster.views(), 0.0).create == []
    cluster.collect()
    assert len(plan_deployment(updated, cluster.views(), 0.0).create) == 2


def test_a_deployment_is_rolled_out_only_once_it_was_looked_at_again() -> None:
    owner = workload("Deployment", replicas=1)
    settle(Cluster(), plan_deployment, owner)
    assert rolled_out(owner)
    owner["metadata"]["generation"] += 1
    assert not rolled_out(owner)


def test_a_statefulset_starts_one_after_the_other_and_stops_backwards() -> None:
    cluster = Cluster()
    owner = workload("StatefulSet", replicas=3, serviceName="db")
    plan = plan_statefulset(owner, [], 0.0)
    assert [pod["metadata"]["name"] for pod in plan.create] == ["web-0"]
    assert plan.create[0]["spec"]["hostname"] == "web-0"
    assert plan.create[0]["spec"]["subdomain"] == "db"
    cluster.apply(plan)
    assert plan_statefulset(owner, cluster.views(), 0.0).create == []
    settle(cluster, plan_statefulset, owner)
    assert list(cluster.pods) == ["web-0", "web-1", "web-2"]
    assert plan_statefulset(workload("StatefulSet", replicas=1), cluster.views(), 0.0).delete == ["web-2"]


def test_a_statefulset_update_goes_from_the_last_pod_to_the_first() -> None:
    cluster = Cluster()
    settle(cluster, plan_statefulset, workload("StatefulSet", replicas=2))
    updated = workload("StatefulSet", command="b", replicas=2)
    order = []
    for _ in range(10):
        plan = plan_statefulset(updated, cluster.views(), 0.0)
        order += plan.delete
        cluster.apply(plan)
        assert sum(not pod.ready for pod in cluster.views()) <= 1
        cluster.collect()
        cluster.apply(plan_statefulset(updated, cluster.views(), 0.0))
        cluster.ready()
    assert order == ["web-1", "web-0"]


def test_a_broken_statefulset_pod_is_replaced_by_a_fixed_template() -> None:
    cluster = Cluster()
    cluster.apply(plan_statefulset(workload("StatefulSet", command="broken", replicas=2), [], 0.0))
    assert plan_statefulset(workload("StatefulSet", replicas=2), cluster.views(), 0.0).delete == ["web-0"]


def test_a_daemonset_pod_is_gone_before_its_successor_comes() -> None:
    cluster = Cluster()
    settle(cluster, plan_daemonset, workload("DaemonSet"))
    assert len(cluster.pods) == 1
    updated = workload("DaemonSet", command="b")
    cluster.apply(plan_daemonset(updated, cluster.views(), 0.0))
    assert plan_daemonset(updated, cluster.views(), 0.0).create == []
    cluster.collect()
    assert len(plan_daemonset(updated, cluster.views(), 0.0).create) == 1


def test_a_replicaset_keeps_its_number_of_pods() -> None:
    cluster = Cluster()
    settle(cluster, plan_replicaset, workload("ReplicaSet", replicas=3))
    assert len(cluster.pods) == 3
    assert len(plan_replicaset(workload("ReplicaSet", replicas=1), cluster.views(), 0.0).delete) == 2


def ended(name: str, phase: str, at: float = 0.0) -> PodView:
    return PodView(name=name, phase=phase, finished=at)


def test_a_job_runs_until_enough_pods_succeeded() -> None:
    job = workload("Job", completions=3, parallelism=2)
    assert len(plan_job(job, [], 0.0).create) == 2
    assert len(plan_job(job, [ended("a", "Succeeded"), ended("b", "Succeeded")], 0.0).create) == 1
    plan = plan_job(job, [ended(name, "Succeeded") for name in "abc"], 7.0)
    assert plan.create == []
    assert plan.status["conditions"] == [{"type": "Complete", "status": "True"}]
    assert plan.status["completionTime"] == "1970-01-01T00:00:07Z"


def test_a_job_waits_longer_after_every_failure_and_gives_up_after_its_backoff_limit() -> None:
    job = workload("Job", backoffLimit=2)
    plan = plan_job(job, [ended("a", "Failed", 100.0)], 104.0)
    assert (plan.create, plan.retry_after) == ([], 6.0)
    assert len(plan_job(job, [ended("a", "Failed", 100.0)], 110.0).create) == 1
    assert plan_job(job, [ended("a", "Failed", 3700.0)], 100.0).retry_after == 10.0
    two = [ended("a", "Failed", 100.0), ended("b", "Failed", 120.0)]
    assert plan_job(job, two, 130.0).retry_after == 10.0
    given_up = plan_job(job, [*two, ended("c", "Failed", 150.0)], 1000.0)
    assert given_up.create == []
    assert given_up.status["conditions"][0]["reason"] == "BackoffLimitExceeded"
    job["status"] = given_up.status
    assert plan_job(job, [], 1000.0).create == []


def test_restarts_inside_a_job_pod_count_as_failures() -> None:
    job = workload("Job", backoffLimit=1)
    plan = plan_job(job, [PodView(name="a", phase="Running", restarts=2)], 0.0)
    assert plan.delete == ["a"]
    assert plan.status["conditions"][0]["type"] == "Failed"
