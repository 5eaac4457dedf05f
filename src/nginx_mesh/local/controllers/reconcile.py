"""Executes the plans of the workload controllers whenever a workload or one of its pods changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource, key_of
from nginx_mesh.control.interfaces import Recorder
from nginx_mesh.local.api import lifecycle
from nginx_mesh.local.api.store import ObjectChange, Store, Transaction

from .daemonset import plan_daemonset
from .deployment import plan_deployment
from .job import plan_job
from .plan import PodView, WorkloadPlan
from .replicaset import plan_replicaset
from .statefulset import plan_statefulset

log = logging.getLogger(__name__)

Planner = Callable[[Resource, Sequence[PodView], float], WorkloadPlan]

PLANNERS: dict[str, Planner] = {
    "Deployment": plan_deployment,
    "StatefulSet": plan_statefulset,
    "DaemonSet": plan_daemonset,
    "ReplicaSet": plan_replicaset,
    "ReplicationController": plan_replicaset,
    "Job": plan_job,
}
_RETRY_SECONDS = 5.0


class Reconciler:
    """Creates and deletes the pods of every workload in the store as its controller plans.

    `admit_pod` completes a new pod inside a transaction. Runs on the event loop, in a step after that of the change.
    """

    def __init__(
        self,
        store: Store,
        admit_pod: Callable[[Transaction, Resource], Resource],
        events: Recorder,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._admit_pod = admit_pod
        self._events = events
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pending: dict[ObjectKey, None] = {}
        self._retries: dict[ObjectKey, asyncio.TimerHandle] = {}
        store.watch(self._changed)
        for kind in PLANNERS:
            for workload in store.list(kind):
                self._enqueue(key_of(workload))

    def close(self) -> None:
        """WorkloadPlan nothing more."""
        for handle in self._retries.values():
            handle.cancel()
        self._pending.clear()

    def _changed(self, change: ObjectChange) -> None:
        if change.key.kind in PLANNERS:
            self._enqueue(change.key)
        elif change.key.kind == "Pod":
            for pod in (change.old, change.new):
                if pod is not None and (owner := _controller(pod)) is not None:
                    self._enqueue(ObjectKey(owner["kind"], change.key.namespace, owner["name"]))

    def _enqueue(self, key: ObjectKey) -> None:
        if not self._pending:
            self._loop.call_soon(self._drain)
        self._pending[key] = None

    def _drain(self) -> None:
        pending, self._pending = self._pending, {}
        for key in pending:
            if handle := self._retries.pop(key, None):
                handle.cancel()
            try:
                retry_after = self._reconcile(key)
            except Exception:
                # A failure with one workload must not stop the others.
                log.exception("cannot reconcile %s", key)
                retry_after = _RETRY_SECONDS
            if retry_after is not None:
                self._retries[key] = self._loop.call_later(retry_after, self._enqueue, key)

    def _reconcile(self, key: ObjectKey) -> float | None:
        workload = self._store.get(key)
        if workload is None or key.kind not in PLANNERS:
            return None
        uid = workload["metadata"]["uid"]
        pods = [pod for pod in self._store.list("Pod", key.namespace) if (_controller(pod) or {}).get("uid") == uid]
        now = self._clock()
        plan = PLANNERS[key.kind](workload, [PodView.of(pod) for pod in pods], now)
        with self._store.transaction() as tx:
            tx.put({**workload, "status": plan.status})
            for name in plan.delete:
                lifecycle.delete(tx, ObjectKey("Pod", key.namespace, name), now)
        for name in plan.delete:
            self._events.record(key, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")
        for pod in plan.create:
            try:
                with self._store.transaction() as tx:
                    created = self._admit_pod(tx, pod)
                    tx.put(created)
            except FieldError as error:
                self._events.record(key, "Warning", "FailedCreate", f"Error creating pod: {error}")
                return _RETRY_SECONDS
            self._events.record(key, "Normal", "SuccessfulCreate", f"Created pod: {created['metadata']['name']}")
        return plan.retry_after


def _controller(pod: Resource) -> Resource | None:
    """The owner reference of a pod's controller, None when it has no controller."""
    references = pod["metadata"].get("ownerReferences", [])
    return next((reference for reference in references if reference.get("controller")), None)
