"""Pods between the store and the kubelet: started when they are created, drained and stopped when they are deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from nginx_mesh.api.annotations import is_injected
from nginx_mesh.api.conditions import is_ready
from nginx_mesh.api.csi import wants_workload_api
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.podstatus import ContainerStatus, PodStatus
from nginx_mesh.api.resource import Resource, key_of
from nginx_mesh.api.times import rfc3339
from nginx_mesh.control.plane import Plane
from nginx_mesh.node.workloadapis import WorkloadApis
from nginx_mesh.node.workloads import Workloads
from nginx_mesh.observe.tasks import TaskSet

from .api import lifecycle
from .api.events import EventLog
from .api.store import ObjectChange, Store
from .api.typed import decode_pod
from .node.kubelet import Kubelet

log = logging.getLogger(__name__)

# How long sidecars may take to acknowledge that a pod is being deleted, and how long a request may take that a sidecar
# sent to the pod just before that.
_ACKNOWLEDGE_SECONDS = 2.0
_DRAIN_SECONDS = 0.7
_RETRY_SECONDS = 2.0

_ENDED = ("Succeeded", "Failed")
# The reasons of a waiting container that is being started.
_STARTING = ("ContainerCreating", "PodInitializing")


class PodSync:
    """Runs the pods of the store on the node, and stores the statuses that the node reports."""

    def __init__(
        self,
        store: Store,
        kubelet: Kubelet,
        plane: Plane,
        workloads: Workloads,
        workload_apis: WorkloadApis,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._kubelet = kubelet
        self._plane = plane
        self._workloads = workloads
        self._workload_apis = workload_apis
        self._events = events
        self._clock = clock
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._tasks = TaskSet()

    def start(self) -> None:
        """Run the pods of the store, and follow its changes from now on."""
        for pod in self._store.list("Pod"):
            self._start_pod(pod)
            if "deletionTimestamp" in pod["metadata"]:
                self._stop_pod(pod)
        self._store.watch(self._changed)

    async def close(self) -> None:
        """Stop. The pods continue to run."""
        await self._tasks.close()

    def _changed(self, change: ObjectChange) -> None:
        if change.key.kind != "Pod" or change.new is None:
            return
        if change.old is None:
            self._start_pod(change.new)
        elif change.old["metadata"].get("deletionGracePeriodSeconds") != change.new["metadata"].get(
            "deletionGracePeriodSeconds"
        ):
            self._stop_pod(change.new)

    def _start_pod(self, resource: Resource) -> None:
        pod = decode_pod(resource)
        if pod.status.phase in _ENDED:
            return
        injected, uid = is_injected(pod.metadata.annotations), pod.metadata.uid
        if injected or wants_workload_api(pod):
            self._plane.registrations.add(pod.key, uid, pod.spec.service_account_name or "default")
        if injected:
            # A sidecar of a ready pod has got its state from an earlier daemon.
            self._workloads.serve(pod.key, uid, had_state=pod.status.ready)
        self._tasks.start(self._run(pod), f"run {pod.key}")

    async def _run(self, pod: Pod) -> None:
        if wants_workload_api(pod):
            try:
                await self._workload_apis.open(pod.metadata.uid)
            except OSError as error:
                self._events.record(pod.key, "Warning", "WorkloadApiFailed", str(error))
        await self._kubelet.run_pod(pod)

    def _stop_pod(self, resource: Resource) -> None:
        uid = resource["metadata"]["uid"]
        if (earlier := self._stopping.pop(uid, None)) is not None:
            earlier.cancel()
        self._stopping[uid] = self._tasks.start(self._drain_and_stop(resource), f"stop {key_of(resource)}")

    async def _drain_and_stop(self, resource: Resource) -> None:
        pod, grace = decode_pod(resource), resource["metadata"]["deletionGracePeriodSeconds"]
        self._events.record(pod.key, "Normal", "Killing", "Stopping the pod")
        if grace and is_ready(resource):
            await self._plane.synced(min(_ACKNOWLEDGE_SECONDS, grace))
            await asyncio.sleep(min(_DRAIN_SECONDS, grace))
        while not await self._try_to_stop(pod.key, grace):
            await asyncio.sleep(_RETRY_SECONDS)
        await self._deregister(pod)
        with self._store.transaction(durable=False) as tx:
            tx.remove(pod.key)
            lifecycle.settle(tx, self._clock())
        self._stopping.pop(pod.metadata.uid, None)

    async def _deregister(self, pod: Pod) -> None:
        self._plane.registrations.remove(pod.key)
        await self._workloads.drop(pod.key, pod.metadata.uid)
        await self._workload_apis.close(pod.metadata.uid)

    async def _try_to_stop(self, key: ObjectKey, grace_seconds: float) -> bool:
        try:
            await self._kubelet.stop_pod(key, grace_seconds)
        except Exception as error:
            log.exception("cannot stop %s", key)
            self._events.record(key, "Warning", "FailedKillPod", str(error))
            return False
        return True

    def report(self, key: ObjectKey, status: PodStatus) -> None:
        """Store the status of a pod that the kubelet reports."""
        resource = self._store.get(key)
        if resource is None:
            return
        old = resource.get("status", {})
        new = {**msgspec.to_builtins(status), **{name: old[name] for name in ("podIP", "podIPs") if name in old}}
        new["conditions"] = _dated(new.get("conditions", []), old.get("conditions", []), rfc3339(self._clock()))
        self._record_changes(key, msgspec.convert(old, PodStatus), status)
        with self._store.transaction(durable=False) as tx:
            tx.put({**resource, "status": new})
        if status.phase in _ENDED:
            self._tasks.start(self._deregister(decode_pod(resource)), f"deregister {key}")

    def probe_failed(self, key: ObjectKey, container: str, reason: str) -> None:
        """Record that a probe keeps a container from being ready."""
        if self._store.get(key) is not None:
            self._events.record(key, "Warning", "Unhealthy", f"container {container}: {reason}")

    def _record_changes(self, key: ObjectKey, old: PodStatus, new: PodStatus) -> None:
        """Record events about containers that have started, failed or cannot start."""
        before = {status.name: status for status in (*old.init_container_statuses, *old.container_statuses)}
        for status in (*new.init_container_statuses, *new.container_statuses):
            name, former = status.name, before.get(status.name, ContainerStatus(name=status.name))
            if status.state.running and (not former.state.running or former.restart_count != status.restart_count):
                self._events.record(key, "Normal", "Started", f"Started container {name}")
            reason, message = _failure(status)
            if reason and reason != _failure(former)[0]:
                self._events.record(key, "Warning", reason, f"container {name}: {message}")


def _failure(status: ContainerStatus) -> tuple[str, str]:
    """The reason and the message of a container that cannot run or has failed; empty for any other."""
    waiting, terminated = status.state.waiting, status.state.terminated
    if waiting and waiting.reason not in _STARTING:
        return waiting.reason, waiting.message
    if terminated and terminated.exit_code:
        return terminated.reason, terminated.message or f"exit code {terminated.exit_code}"
    return "", ""


def _dated(conditions: list[Resource], before: list[Resource], now: str) -> list[Resource]:
    """Conditions with the time of their last change of status."""
    old = {condition["type"]: condition for condition in before}
    return [
        {**condition, "lastTransitionTime": known["lastTransitionTime"]}
        if (known := old.get(condition["type"])) is not None and known["status"] == condition["status"]
        else {**condition, "lastTransitionTime": now}
        for condition in conditions
    ]
