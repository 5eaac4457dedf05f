"""Running one pod: its network, volumes and containers."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

from nginx_mesh.api.annotations import SIDECAR_CONTAINER
from nginx_mesh.api.containers import Container
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.podstatus import PodStatus
from nginx_mesh.local.files import remove_tree, write_file
from nginx_mesh.local.net import netns, network

from .cleanup import kill_in_namespaces
from .containerworker import ContainerWorker, NodeContext, countdown
from .podstatus import pod_status
from .volumes import ConfigError, mount_volumes, projected_objects

log = logging.getLogger(__name__)

OnStatus = Callable[[ObjectKey, PodStatus], None]
OnProbeFailure = Callable[[ObjectKey, str, str], None]
"""Called with a pod, the name of one of its containers, and how a probe of that container failed."""

_SANDBOX_RETRY_SECONDS = 2.0
# The time that a sidecar gets to finish its requests.
_SIDECAR_STOP_SECONDS = 5.0


class PodWorker:
    """Runs a pod. The worker of a later daemon can continue from the files that this one leaves.

    Containers start in this order: the init containers one by one, the sidecar, and when that is ready all others.
    They stop in the opposite order. When all but the sidecar have ended for good, the sidecar is stopped too.
    """

    def __init__(self, node: NodeContext, pod: Pod, on_status: OnStatus, on_probe_failure: OnProbeFailure) -> None:
        self.pod = pod
        self._node = node
        self._on_status = on_status
        self._on_probe_failure = on_probe_failure
        self._directory = node.paths.pod_dir(pod.metadata.uid)
        self._published: PodStatus | None = None
        self._problem = ("", "")
        self._ended = False
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None
        self._stop_deadline = float("inf")
        self._start_time = self._read_start_time()
        policy = pod.spec.restart_policy
        spec = pod.spec
        initial_policy = "Never" if policy == "Never" else "OnFailure"
        self._initial = self._workers(spec.init_containers, "spec.initContainers", initial_policy)
        self._containers = self._workers(spec.containers, "spec.containers", policy)
        self._sidecars = [worker for worker in self._containers if worker.container.name == SIDECAR_CONTAINER]
        self._apps = [worker for worker in self._containers if worker not in self._sidecars]

    def start(self) -> None:
        """Begin to run the pod, or continue with it."""
        self._publish()
        self._task = asyncio.create_task(self._run_logged())

    def container(self, name: str) -> ContainerWorker:
        """The container called `name`, or the first one for "". Raises LookupError."""
        workers = [*self._apps, *self._sidecars, *self._initial]
        for worker in workers:
            if name in ("", worker.container.name):
                return worker
        raise LookupError(f"{self.pod.key} has no container {name!r}")

    def containers(self) -> list[ContainerWorker]:
        """All containers, in the order in which they start."""
        return [*self._initial, *self._containers]

    async def refresh_volumes(self, changed: ObjectKey) -> None:
        """Update the mounted files of a changed ConfigMap or Secret."""
        if changed in projected_objects(self.pod) and not self._stopping:
            try:
                await asyncio.to_thread(mount_volumes, self.pod, self._node.paths, self._node.lookup)
            except (ConfigError, OSError) as error:
                log.warning("%s: %s; the files stay as they were", self.pod.key, error)

    async def stop(self, grace_seconds: float) -> None:
        """End the pod, and remove everything that it had.

        May be called again to shorten the grace period. Cancelling a caller does not interrupt the removal.
        """
        self._stop_deadline = min(self._stop_deadline, time.monotonic() + grace_seconds)
        if self._stop_task is None:
            self._stopping = True
            self._stop_task = asyncio.create_task(self._stop())
        await asyncio.shield(self._stop_task)

    async def release(self) -> None:
        """Stop supervising the pod, which continues to run."""
        for task in (self._stop_task, self._task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for worker in (*self._initial, *self._containers):
            worker.release()

    def _workers(self, containers: Iterable[Container], field: str, policy: str) -> list[ContainerWorker]:
        statuses = [*self.pod.status.container_statuses, *self.pod.status.init_container_statuses]
        previous = {status.name: status for status in statuses}
        return [
            ContainerWorker(
                self._node,
                self.pod,
                container,
                field=f"{field}[{index}]",
                policy=policy,
                previous=previous.get(container.name),
                on_change=self._publish,
                on_probe_failure=partial(self._on_probe_failure, self.pod.key, container.name),
            )
            for index, container in enumerate(containers)
        ]

    async def _run_logged(self) -> None:
        try:
            await self._run()
        except Exception as error:
            log.exception("%s", self.pod.key)
            self._problem = ("RuntimeError", f"a fault of the local runtime: {error!r}")
            self._publish()

    async def _run(self) -> None:
        await self._make_network()
        await self._mount_volumes()
        for worker in self._initial:
            if await worker.run() != 0:
                self._end()
                return
        sidecars = [asyncio.create_task(worker.run()) for worker in self._sidecars if not self._apps_ended()]
        try:
            if sidecars:
                await self._await_sidecars(sidecars)
            async with asyncio.TaskGroup() as apps:
                for worker in self._apps:
                    apps.create_task(worker.run())
        finally:
            for task in sidecars:
                task.cancel()
            await asyncio.gather(*sidecars, return_exceptions=True)
        await self._stop_sidecars(_SIDECAR_STOP_SECONDS)
        self._end()

    async def _make_network(self) -> None:
        paths, uid, addresses = self._node.paths, self.pod.metadata.uid, self.pod.status.ips
        networks = self._node.facts.networks
        while True:
            try:
                if not self.pod.spec.host_network:
                    await netns.run_async(lambda: network.add_pod(paths, uid, addresses, networks), paths.node_netns)
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_file(self._directory / "start_time", self._start_time.encode())
                self._problem = ("", "")
                return
            except (OSError, ValueError) as error:
                self._problem = ("FailedCreatePodSandBox", str(error))
                self._publish()
            await asyncio.sleep(_SANDBOX_RETRY_SECONDS)

    async def _mount_volumes(self) -> None:
        everyone = [*self._initial, *self._containers]
        while True:
            try:
                volumes = await asyncio.to_thread(mount_volumes, self.pod, self._node.paths, self._node.lookup)
                break
            except (ConfigError, OSError) as error:
                for worker in everyone:
                    if worker.status.state.waiting:
                        worker.wait_for("ContainerCreating", str(error))
            await self._node.wait_for_change()
        for worker in everyone:
            worker.volumes = volumes

    async def _await_sidecars(self, running: list[asyncio.Task[int]]) -> None:
        """Wait until each sidecar is ready, or has ended for good. The other containers then start without it."""
        for worker in self._apps:
            if worker.status.state.waiting:
                worker.wait_for("PodInitializing", f"waiting for {SIDECAR_CONTAINER} to be ready")
        for worker, task in zip(self._sidecars, running, strict=True):
            ready = asyncio.create_task(worker.ready.wait())
            try:
                await asyncio.wait((ready, task), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ready.cancel()

    def _apps_ended(self) -> bool:
        """Whether all containers but the sidecar have ended for good."""
        return bool(self._apps) and all(worker.ended() for worker in self._apps)

    def _end(self) -> None:
        self._ended = True
        self._publish()

    async def _stop(self) -> None:
        self._publish()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        first = [*self._initial, *self._apps]
        await asyncio.gather(*(worker.stop(signal.SIGTERM, self._seconds_left) for worker in first))
        left = self._seconds_left()
        await self._stop_sidecars(min(max(left, 1.0), _SIDECAR_STOP_SECONDS) if left else 0.0)
        await netns.run_async(self._remove_everything, self._node.paths.node_netns)

    async def _stop_sidecars(self, seconds: float) -> None:
        # SIGQUIT makes nginx finish its open requests and exit.
        left = countdown(seconds)
        await asyncio.gather(*(worker.stop(signal.SIGQUIT, left, main_only=True) for worker in self._sidecars))

    def _seconds_left(self) -> float:
        return max(0.0, self._stop_deadline - time.monotonic())

    def _remove_everything(self) -> None:
        paths, uid = self._node.paths, self.pod.metadata.uid
        kill_in_namespaces([paths.pod_netns(uid)])
        network.remove_pod(paths, uid)
        sockets = (paths.pod_socket_dir(uid), paths.workload_api_dir(uid))
        for directory in (paths.pod_disk(uid), *sockets, paths.pod_logs(uid), paths.pod_dir(uid)):
            remove_tree(directory)

    def _read_start_time(self) -> str:
        try:
            return (self._directory / "start_time").read_text()
        except FileNotFoundError:
            return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _publish(self) -> None:
        status = pod_status(
            self.pod,
            initial=[worker.status for worker in self._initial],
            containers=[worker.status for worker in self._containers],
            ended=self._ended,
            terminating=self._stopping,
            start_time=self._start_time,
            host_ip=str(self._node.facts.networks.nodes[0]),
            problem=self._problem,
        )
        if status != self._published:
            self._published = status
            self._on_status(self.pod.key, status)
