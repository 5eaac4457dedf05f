"""Pieces of tests under load: an application, 500 requests per second of HTTP and gRPC, eyes on its sidecars."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509

from nginx_mesh.api.conditions import is_ready
from nginx_mesh.cli.errors import ControlPlaneUnreachableError, MeshError
from nginx_mesh.local.net import netns
from nginx_mesh.local.node.container import ContainerDir

from .localcli import LocalCli
from .manifests import SHOP, idle_pod, peers
from .repeating import Repeating

RATE = 500
SIDECAR = "nginx-mesh-sidecar"

SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: server, namespace: shop}
spec:
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: http
        command: [python3, /peers/http_server.py, --port, "8080"]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: peers, mountPath: /peers}]
      - name: grpc
        command: [python3, /peers/grpc_server.py, --port, "50051"]
        ports: [{containerPort: 50051}]
        readinessProbe: {tcpSocket: {port: 50051}, periodSeconds: 1}
        volumeMounts: [{name: peers, mountPath: /peers}]
      volumes: [{name: peers, configMap: {name: peers}}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec:
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 50051}]
---
"""
# Some requests take a while, so that there are always some in the middle of being answered.
CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: load
    command:
    - sh
    - -c
    - >-
      python3 /peers/load.py --http http://server/echo --grpc server:50051 --http 'http://server/slow?s=0.3'
      --grpc server:50051 --rate %d --seconds %d --concurrency 1000; exec sleep infinity
    volumeMounts: [{name: peers, mountPath: /peers}]
  volumes: [{name: peers, configMap: {name: peers}}]
"""


def application() -> str:
    """The manifest of the application."""
    return SHOP + SERVER + idle_pod("outsider", "default") + peers()


@dataclass
class Seen:
    """What was seen of one sidecar: its processes (master and workers, each time anew), and its SVIDs."""

    processes: set[tuple[str, ...]] = field(default_factory=set)
    expiries: set[int] = field(default_factory=set)
    serials: set[int] = field(default_factory=set)
    signers: set[bytes | None] = field(default_factory=set)


class Load:
    """Requests of a meshed client, for so many seconds. `report` is what load.py says in the end."""

    def __init__(self, mesh: LocalCli, seconds: int) -> None:
        self.report: dict[str, Any] = {}
        self._mesh = mesh
        self._seconds = seconds

    def __enter__(self) -> Load:
        self._mesh.apply(CLIENT % (RATE, self._seconds))
        self._mesh.wait_ready()
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._mesh.wait(lambda: "longest_gap_ms" in self._output(), self._seconds + 30)
            self.report = json.loads(self._output())

    def until(self, share: float) -> None:
        """Wait until this share of the time is over."""
        time.sleep(max(0.0, self._began + share * self._seconds - time.monotonic()))

    @property
    def runs(self) -> bool:
        """Whether it still makes requests."""
        return time.monotonic() < self._began + self._seconds - 1

    def _output(self) -> str:
        return self._mesh.ok("logs", "client", "-n", "shop", "-c", "load")


class Watch(Repeating):
    """Looks at the sidecars of ready pods every second while it is entered; `seen` is by the pod's name."""

    def __init__(self, mesh: LocalCli) -> None:
        super().__init__(interval=1)
        self.seen: dict[str, Seen] = {}
        self._mesh = mesh

    def _once(self) -> None:
        # Without a daemon there is nobody to ask for pods, and pods may go while they are looked at.
        with contextlib.suppress(OSError, MeshError, ControlPlaneUnreachableError):
            for name, pod in ready_pods(self._mesh).items():
                self._look(name, pod)

    def _look(self, name: str, pod: dict[str, Any]) -> None:
        paths, uid, address = self._mesh.paths, pod["metadata"]["uid"], pod["status"]["podIP"]
        master = ContainerDir(paths.pod_dir(uid) / "containers" / SIDECAR).main_pid()
        if master is None:
            return
        workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        seen = self.seen.setdefault(name, Seen())
        seen.processes.add(tuple(_process(pid) for pid in (str(master), *workers)))
        seen.expiries.add(netns.run_in_thread(_svid_expiry, paths.pod_netns(uid)))
        if name != "client":
            certificate = netns.run_in_thread(lambda: _certificate(address), paths.node_netns)
            signer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
            seen.serials.add(certificate.serial_number)
            seen.signers.add(signer.value.key_identifier)


def ready_pods(mesh: LocalCli) -> dict[str, dict[str, Any]]:
    """The ready pods of the application, by name."""
    return {name: pod for name, pod in mesh.pods().items() if is_ready(pod)}


def _process(pid: str) -> str:
    """Names a process for all time: its pid and when it began."""
    return f"{pid}@{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"


def _svid_expiry() -> int:
    connection = http.client.HTTPConnection("127.0.0.1", 8886, timeout=5)
    connection.request("GET", "/status")
    expiry: int = json.loads(connection.getresponse().read())["svid_expires"]
    return expiry


def _certificate(address: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((address, 8080), timeout=5).encode())


def sidecar_log(mesh: LocalCli, pod: str) -> str:
    """What a sidecar wrote."""
    return mesh.ok("logs", pod, "-n", "shop", "-c", SIDECAR)


def sidecar_errors(mesh: LocalCli) -> str:
    """What sidecars that still run complained of."""
    lines = [f"{pod}: {line}" for pod in ready_pods(mesh) for line in sidecar_log(mesh, pod).splitlines()]
    return "\n".join(line for line in lines if re.search(r"\[(warn|error|crit|alert|emerg)\]|\" 50[0-9] ", line))
