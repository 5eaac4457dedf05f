"""A node for tests: a kubelet with a mesh name of its own, in this process, and everything removed afterwards.

While a `LocalNode` is entered, the test's own thread is in the node's network namespace: it can dial pods directly.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from nginx_mesh.api.containers import Container
from nginx_mesh.api.meta import Object, ObjectKey, ObjectMeta
from nginx_mesh.api.pods import Pod, PodSpec
from nginx_mesh.api.podstatus import ContainerStatus, PodIP, PodStatus
from nginx_mesh.api.services import Service
from nginx_mesh.local.net import netns
from nginx_mesh.local.net.networks import DEFAULT
from nginx_mesh.local.node.cleanup import destroy_node
from nginx_mesh.local.node.kubelet import Kubelet
from nginx_mesh.local.node.restarts import BackoffSettings
from nginx_mesh.local.node.services import resolve_services
from nginx_mesh.local.paths import MeshPaths
from tests.eventually import eventually

QUICK_BACKOFF = BackoffSettings(base=0.2, cap=1.0, reset=600)


class LocalNode:
    """`async with LocalNode() as node:` gives `node.kubelet`, with `objects` to look up.

    `statuses` are the latest ones, `history` and `probe_failures` all that was told so far.
    """

    def __init__(self, images: dict[str, Path] | None = None, **kubelet_options: Any) -> None:
        self.name = f"t{secrets.token_hex(4)}"
        self.root = Path(tempfile.mkdtemp(prefix="nsm-", dir="/tmp"))
        self.paths = MeshPaths(self.name, self.root)
        self.objects: dict[ObjectKey, Object] = {}
        self.statuses: dict[ObjectKey, PodStatus] = {}
        self.history: list[tuple[ObjectKey, PodStatus]] = []
        self.probe_failures: list[tuple[ObjectKey, str, str]] = []
        self._images = images or {}
        self._options = {"backoff": QUICK_BACKOFF, **kubelet_options}
        self._changed = asyncio.Event()
        self._addresses = 1
        self._outside = netns.open_own()
        self.kubelet = self.new_kubelet()

    def new_kubelet(self) -> Kubelet:
        """A further kubelet for the same node, as a restarted daemon would make it."""
        return Kubelet(
            self.paths,
            images=self._images,
            lookup=self.objects.get,
            on_status=self._record,
            node_name="local",
            on_probe_failure=self._record_probe_failure,
            **self._options,
        )

    async def __aenter__(self) -> LocalNode:
        netns.enter_node(self.name)
        try:
            await self.kubelet.start([])
        except BaseException:
            await self._clean_up()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._clean_up()

    async def _clean_up(self) -> None:
        try:
            await self.destroy()
        finally:
            netns.enter(self._outside)
            os.close(self._outside)
            netns.delete(self.paths.node_netns)
            for directory, _, _ in os.walk(self.root, topdown=False):
                Path(directory).rmdir()

    async def destroy(self) -> None:
        """End everything on the node and remove all files."""
        await self.kubelet.close()
        await netns.run_async(lambda: destroy_node(self.paths))

    def put(self, *objects: Object) -> None:
        """Store objects for the kubelet to look up."""
        self.objects |= {obj.key: obj for obj in objects}

    def pod(self, name: str, *containers: Container, labels: dict[str, str] | None = None, **spec: Any) -> Pod:
        """A pod with a uid and addresses, as the API server makes them."""
        self._addresses += 1
        ips = [PodIP(ip=str(network[self._addresses])) for network in DEFAULT.all]
        return Pod(
            metadata=ObjectMeta(name=name, namespace="default", uid=str(uuid.uuid4()), labels=labels or {"app": name}),
            spec=PodSpec(containers=list(containers), **{"termination_grace_period_seconds": 5, **spec}),
            status=PodStatus(pod_ip=ips[0].ip, pod_ips=ips),
        )

    async def run(self, *pods: Pod) -> None:
        """Run pods and wait until all are ready."""
        for pod in pods:
            await self.kubelet.run_pod(pod)
        for pod in pods:
            await self.wait(pod, lambda status: status.ready)

    async def wait(self, pod: Pod, condition: Callable[[PodStatus], bool], seconds: float = 20.0) -> PodStatus:
        """Wait until a pod's status meets a condition; the status."""
        try:
            async with asyncio.timeout(seconds):
                while (status := self.statuses.get(pod.key)) is None or not condition(status):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{pod.key}: {self.statuses.get(pod.key)}\n{self.logs(pod)}") from None
        return status

    async def probe_failure(self, pod: Pod, ending: str, seconds: float = 20.0) -> None:
        """Wait until a probe of a pod fails for a reason that ends so."""
        await eventually(
            lambda: any(key == pod.key and reason.endswith(ending) for key, _, reason in self.probe_failures),
            lambda: f"a probe of {pod.key} fails: {self.probe_failures}",
            seconds,
        )

    async def finish(self, pod: Pod) -> str:
        """Run a pod to its end; its first container's output, which must have succeeded."""
        await self.kubelet.run_pod(pod)
        status = await self.wait(pod, lambda status: status.phase in ("Succeeded", "Failed"))
        assert status.phase == "Succeeded", f"{status}\n{self.logs(pod)}"
        return self.logs(pod)

    async def sync(self, services: Iterable[Service], *pods: Pod) -> None:
        """Publish services with the pods behind them, by their present statuses."""
        current = [msgspec.structs.replace(pod, status=self.statuses.get(pod.key, pod.status)) for pod in pods]
        await self.kubelet.sync_services(resolve_services(services, current))

    def log_path(self, pod: Pod, container: str) -> Path:
        """The file with a container's output; it may not exist yet."""
        return self.paths.pod_logs(pod.metadata.uid) / f"{container}.log"

    def logs(self, pod: Pod, container: str = "") -> str:
        """What a container has printed."""
        path = self.log_path(pod, container or pod.spec.containers[0].name)
        return path.read_text() if path.exists() else ""

    async def exec(self, pod: Pod, *argv: str, container: str = "") -> tuple[int, str]:
        """Run a command in a container: exit code and output."""
        reader, writer = os.pipe()
        try:
            code = await self.kubelet.exec(pod.key, container, argv, 0, writer, writer)
        finally:
            os.close(writer)
        with os.fdopen(reader) as output:
            return code, output.read()

    def _record(self, key: ObjectKey, status: PodStatus) -> None:
        self.statuses[key] = status
        self.history.append((key, status))
        self._changed.set()

    def _record_probe_failure(self, key: ObjectKey, container: str, why: str) -> None:
        self.probe_failures.append((key, container, why))
        self._changed.set()


def why(status: ContainerStatus) -> tuple[str, str]:
    """Reason and message of a container that waits or has ended; empty of one that runs."""
    state = status.state.waiting or status.state.terminated
    return (state.reason, state.message) if state else ("", "")


def exit_code(status: ContainerStatus) -> int | None:
    """The exit code of a container that has ended."""
    return status.state.terminated.exit_code if status.state.terminated else None


def python(code: str) -> list[str]:
    """A command that runs Python code."""
    return ["python3", "-u", "-c", code]
