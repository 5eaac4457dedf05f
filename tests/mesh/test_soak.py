"""No request fails, whatever the mesh goes through meanwhile.

A meshed client makes 500 requests per second, HTTP and gRPC by turns, from before the first change to after the last.
Meanwhile SVIDs rotate every 10 s and the CA once, the servers scale 1 → 5 → 2, the mesh goes from permissive to strict,
and the daemon is killed in the middle of scaling down and started again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import yaml
from cryptography import x509

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.cli import meshes
from nginx_mesh.cli.client import UnreachableError
from nginx_mesh.local import netns
from nginx_mesh.local.container import ContainerDir
from nginx_mesh.local.readiness import is_ready

from .localcli import LocalCli

pytestmark = pytest.mark.mesh

PEERS = Path(__file__).parent / "peers"
RATE = 500
SECONDS = 60
# Renewed after 2/5 to 1/2 of their life: every 10 s. Flags and MeshConfig know whole minutes only.
SVID_SECONDS = 22
SVID_PERIOD = SVID_SECONDS / 2
# Hands over to its successor after 5/6 of its life.
CA_SECONDS = 45
SIDECAR = "nginx-mesh-sidecar"

APP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {injector.nsm.nginx.com/auto-inject: enabled}}
---
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
apiVersion: v1
kind: Pod
metadata: {name: outsider, namespace: default}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, command: [sleep, infinity]}]}
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
STRICT = """
apiVersion: nsm.nginx.com/v1alpha2
kind: MeshConfig
metadata: {name: nginx-mesh-config, namespace: nginx-mesh}
spec: {meshConfigClassName: nginx-mesh-config-class, mtls: {mode: strict}}
"""
GET = """
import http.client
connection = http.client.HTTPConnection("server.shop", timeout=5)
connection.request("GET", "/echo")
print(connection.getresponse().status)
"""


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


class Watch:
    """Looks at the sidecars of ready pods every second while it is entered; `seen` is by the pod's name."""

    def __init__(self, mesh: LocalCli) -> None:
        self.seen: dict[str, Seen] = {}
        self._mesh = mesh
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1):
            # Without a daemon there is nobody to ask for pods, and pods may go while they are looked at.
            with contextlib.suppress(OSError, meshes.MeshError, UnreachableError):
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
    items = meshes.connect(mesh.paths).get("/api/v1/namespaces/shop/pods")["items"]
    return {pod["metadata"]["name"]: pod for pod in items if is_ready(pod)}


def servers(mesh: LocalCli) -> set[str]:
    """The names of the ready servers."""
    return {name for name in ready_pods(mesh) if name.startswith("server-")}


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


def outsider(mesh: LocalCli) -> str:
    """What a pod outside the mesh gets: a status, or what went wrong."""
    result = mesh.run("exec", "outsider", "--", "python3", "-c", GET)
    return result.stdout.strip() or result.stderr.strip().splitlines()[-1]


def sidecar_log(mesh: LocalCli, pod: str) -> str:
    """What a sidecar wrote."""
    return mesh.ok("logs", pod, "-n", "shop", "-c", SIDECAR)


def sidecar_errors(mesh: LocalCli) -> str:
    """What sidecars that still run complained of."""
    lines = [f"{pod}: {line}" for pod in ready_pods(mesh) for line in sidecar_log(mesh, pod).splitlines()]
    return "\n".join(line for line in lines if re.search(r"\[(warn|error|crit|alert|emerg)\]|\" 50[0-9] ", line))


@pytest.fixture
def mesh() -> Iterator[LocalCli]:
    """A mesh with one server."""
    peers = {path.name: path.read_text() for path in PEERS.glob("*.py")}
    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "peers", "namespace": "shop"}, "data": peers}
    with LocalCli() as mesh:
        meshes.create(mesh.paths, MeshSettings(svid_ttl=SVID_SECONDS, ca_ttl=CA_SECONDS))
        mesh.ok("up", "-f", "-", stdin=f"{APP}---\n{yaml.safe_dump(code)}".encode())
        yield mesh


def test_no_request_fails_while_everything_changes(mesh: LocalCli) -> None:
    (first,) = servers(mesh)
    assert outsider(mesh) == "200"
    with Watch(mesh) as watch, Load(mesh, SECONDS) as load:
        load.until(0.1)
        mesh.ok("scale", "deploy/server", "--replicas", "5", "-n", "shop")
        mesh.wait(lambda: len(servers(mesh)) == 5, 30)
        load.until(0.4)
        mesh.apply(STRICT)
        load.until(0.5)
        all_servers = servers(mesh)
        mesh.ok("scale", "deploy/server", "--replicas", "2", "-n", "shop")
        os.kill(mesh.daemon_pid(), signal.SIGKILL)
        load.until(0.6)
        mesh.ok("up")
        mesh.wait(lambda: len(meshes.connect(mesh.paths).get("/api/v1/namespaces/shop/pods")["items"]) == 3, 30)
        assert load.runs, "the changes took longer than the load"

    report = load.report
    print(json.dumps(report))
    assert (report["failed"], report["reasons"]) == (0, {}), sidecar_errors(mesh)
    assert report["ok"] == report["sent"] == RATE * SECONDS
    assert {protocol["ok"] for protocol in report["protocols"].values()} == {RATE * SECONDS // 2}
    assert all_servers <= report["served_by"].keys()
    survivors = {"client", *servers(mesh)}
    assert first in survivors and len(survivors) == 3
    for name in survivors:
        assert len(watch.seen[name].processes) == 1, "nginx was reloaded or restarted"
        assert "exited on signal" not in sidecar_log(mesh, name)
    for name in ("client", first):
        assert len(watch.seen[name].expiries) >= SECONDS / SVID_PERIOD - 1, "its SVID did not rotate"
    assert len(watch.seen[first].serials) >= SECONDS / SVID_PERIOD - 1
    assert len(watch.seen[first].signers) >= 2, "the CA did not rotate"
    assert outsider(mesh) != "200"
