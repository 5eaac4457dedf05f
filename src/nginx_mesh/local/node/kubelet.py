"""The node of a local mesh: runs pods, and serves DNS names and addresses of services."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.local.net import netns, network
from nginx_mesh.local.net.networks import DEFAULT, PodNetworks
from nginx_mesh.local.paths import MeshPaths
from nginx_mesh.observe.tasks import TaskSet

from . import dns
from .cleanup import remove_lost_containers, remove_other_pods
from .containerworker import NodeContext
from .dnsprocess import DnsProcess
from .kubeproxy import apply_rules, render_rules
from .launchspec import NodeFacts
from .podworker import OnProbeFailure, OnStatus, PodWorker
from .restarts import KUBERNETES_BACKOFF, BackoffSettings
from .rotation import rotate_all
from .services import ServiceEntry
from .volumes import Lookup

_CONTAINER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class NotRunningError(Exception):
    """The pod or container does not exist, or does not run."""


class Kubelet:
    """Runs the pods of one mesh.

    `images` maps prefixes of image names to root file systems. `lookup` gives ConfigMaps and Secrets. `on_status` is
    called with a pod's status whenever that changes, `on_probe_failure` with the reason when a probe keeps a
    container from being ready. Sizes are bytes. All methods belong to one event loop, whose thread is in the node's
    network namespace (`enter_node`).
    """

    def __init__(
        self,
        paths: MeshPaths,
        *,
        images: Mapping[str, Path],
        lookup: Lookup,
        on_status: OnStatus,
        on_probe_failure: OnProbeFailure,
        networks: PodNetworks = DEFAULT,
        node_name: str,
        backoff: BackoffSettings = KUBERNETES_BACKOFF,
        log_bytes: int = 10 * 1024 * 1024,
        log_check_seconds: float = 5.0,
    ) -> None:
        facts = NodeFacts(name=node_name, cluster_domain=dns.CLUSTER_DOMAIN, images=images, networks=networks)
        self._node = NodeContext(paths=paths, facts=facts, backoff=backoff, lookup=lookup, changed=asyncio.Condition())
        self._paths = paths
        self._on_status = on_status
        self._on_probe_failure = on_probe_failure
        self._log_bytes = log_bytes
        self._log_check_seconds = log_check_seconds
        self._pods: dict[ObjectKey, PodWorker] = {}
        self._tasks = TaskSet()
        self._networks = networks
        self._dns = DnsProcess(paths, networks)
        self._wanted_services: tuple[ServiceEntry, ...] | None = None
        self._current_services: tuple[ServiceEntry, ...] | None = None
        self._services_lock = asyncio.Lock()

    async def start(self, pods: Sequence[Pod]) -> None:
        """Set up the node, or continue with that of an earlier daemon.

        Continues with those of `pods` that run already, and ends all other pods.
        """
        self._paths.make()
        await netns.run_async(lambda: network.set_up_node(self._networks), self._paths.node_netns)
        await self._dns.ensure()
        self._tasks.start(self._dns.keep(), "keep the DNS server running")
        self._tasks.start(self._rotate_logs(), "rotate the logs")
        uids = [pod.metadata.uid for pod in pods]
        await netns.run_async(lambda: remove_other_pods(self._paths, uids), self._paths.node_netns)
        for pod in pods:
            if self._paths.pod_dir(pod.metadata.uid).exists():
                await self.run_pod(pod)

    async def run_pod(self, pod: Pod) -> None:
        """Begin to run a pod (already injected, with a uid and addresses), or continue with it if it runs already.

        Waits for an earlier pod of this name that is being stopped. A pod with a deletion timestamp is not started, and
        can only be stopped. Raises ValueError for a pod that cannot be run.
        """
        for container in (*pod.spec.init_containers, *pod.spec.containers):
            if not _CONTAINER_NAME.fullmatch(container.name):
                raise ValueError(f"{pod.key}: container name {container.name!r} is not a DNS label")
        earlier = self._pods.get(pod.key)
        if earlier is not None:
            if earlier.pod.metadata.uid == pod.metadata.uid:
                return
            await self.stop_pod(pod.key, earlier.pod.spec.termination_grace_period_seconds)
        if not pod.spec.host_network:
            uid, node = pod.metadata.uid, self._paths.node_netns
            await netns.run_async(lambda: remove_lost_containers(self._paths, uid), node)
        worker = PodWorker(self._node, pod, self._on_status, self._on_probe_failure)
        self._pods[pod.key] = worker
        if not pod.metadata.deletion_timestamp:
            worker.start()

    async def stop_pod(self, key: ObjectKey, grace_seconds: float) -> None:
        """End a pod and remove everything that it had: first its containers, then its sidecar.

        Kills what has not ended after `grace_seconds`. May be called again to shorten the grace period. Does nothing
        when there is no such pod.
        """
        worker = self._pods.get(key)
        if worker is None:
            return
        await worker.stop(grace_seconds)
        if self._pods.get(key) is worker:
            del self._pods[key]

    async def exec(
        self,
        key: ObjectKey,
        container: str,
        argv: Sequence[str],
        stdin: int,
        stdout: int,
        stderr: int,
        *,
        tty: bool = False,
    ) -> int:
        """Run a command in a container ("" for the first) on these file descriptors; returns its exit code.

        With `tty`, stdin must be a terminal. Cancelling ends the command. Raises NotRunningError.
        """
        worker = self._pods.get(key)
        if worker is None:
            raise NotRunningError(f"{key} is not running")
        try:
            return await worker.container(container).execute(list(argv), stdin, stdout, stderr, tty)
        except LookupError as error:
            raise NotRunningError(str(error)) from None
        except ProcessLookupError as error:
            raise NotRunningError(f"{key}: {error}") from None

    async def sync_services(self, entries: Iterable[ServiceEntry]) -> None:
        """Make DNS and service addresses follow this table (of `services.resolve_services`).

        When several calls wait, only the newest table is applied. Raises KubeProxyError.
        """
        self._wanted_services = tuple(entries)
        async with self._services_lock:
            wanted = self._wanted_services
            if wanted == self._current_services:
                return
            await apply_rules(render_rules(wanted, self._networks))
            snapshot = dns.Snapshot(cluster_domain=dns.CLUSTER_DOMAIN, services=list(wanted))
            dns.write_snapshot(self._paths.dns, snapshot)
            self._current_services = wanted

    async def object_changed(self, key: ObjectKey) -> None:
        """Update the mounted files of a changed ConfigMap or Secret, and start containers that wait for it."""
        async with self._node.changed:
            self._node.changed.notify_all()
        await asyncio.gather(*(worker.refresh_volumes(key) for worker in self._pods.values()))

    async def close(self) -> None:
        """Stop. Pods and DNS continue to run."""
        await self._tasks.close()
        await asyncio.gather(*(worker.release() for worker in self._pods.values()))
        self._pods.clear()

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(self._log_check_seconds)
            paths = [worker.log_path for pod in self._pods.values() for worker in pod.containers()]
            await asyncio.to_thread(rotate_all, paths, self._log_bytes)
