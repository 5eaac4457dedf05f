"""The local mesh's commands with sidecars: readiness, live settings, and no request lost whatever is done."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from types import TracebackType

import pytest

from nginx_mesh.local.net import netns

from .localcli import CTL, LocalCli
from .manifests import IDLE_CLIENT, SHOP, web

pytestmark = pytest.mark.mesh

OUTSIDER = """
apiVersion: v1
kind: Pod
metadata: {name: outsider, namespace: default}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: client, command: [sleep, infinity]}]}
"""
APP = SHOP + web("10.96.6.6") + IDLE_CLIENT + OUTSIDER
MESH_CONFIG = """
apiVersion: nsm.nginx.com/v1alpha2
kind: MeshConfig
metadata: {name: nginx-mesh-config, namespace: nginx-mesh}
spec: {meshConfigClassName: nginx-mesh-config-class, mtls: {mode: %s}}
"""
GET = """
import http.client, sys
connection = http.client.HTTPConnection("10.96.6.6", timeout=5)
connection.request("GET", "/")
print(connection.getresponse().status)
"""
# Until stdin ends: a request on a new connection and one on a kept connection in turn; then what went wrong.
LOAD = """
import http.client, json, select, sys, time
failures, requests, kept = [], 0, http.client.HTTPConnection("10.96.6.6", timeout=5)
while not select.select([sys.stdin], [], [], 0.004)[0]:
    requests += 1
    connection = kept if requests % 2 else http.client.HTTPConnection("10.96.6.6", timeout=5)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            failures.append(f"{time.time()} status {answer.status}")
    except (OSError, http.client.HTTPException) as error:
        failures.append(f"{time.time()} {error!r}")
        kept.close()
    if connection is not kept:
        connection.close()
print(json.dumps([requests, failures]))
"""


class MeshedLoad:
    """Requests from the client pod to the service until it is left."""

    def __init__(self, mesh: LocalCli) -> None:
        self._mesh = mesh

    def __enter__(self) -> MeshedLoad:
        command = [*CTL, "exec", "-i", "--name", self._mesh.name, "-n", "shop", "-c", "client", "client", "--"]
        self._process = subprocess.Popen(
            [*command, "python3", "-c", LOAD], env=self._mesh.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        output, _ = self._process.communicate(timeout=20)
        if kind is None:
            self.requests, self.failures = json.loads(output)


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as mesh:
        mesh.ok("up", "-f", "-", stdin=APP.encode())
        yield mesh


def status(mesh: LocalCli, pod: str, namespace: str) -> str:
    """What the service answers a pod; what went wrong when it does not."""
    result = mesh.run("exec", pod, "-n", namespace, "-c", "client", "--", "python3", "-c", GET)
    return result.stdout.strip() or result.stderr.strip().splitlines()[-1]


def test_pods_have_their_sidecars_and_workloads_stay_as_written(mesh: LocalCli) -> None:
    lines = mesh.ok("get", "pods", "-n", "shop").splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["2/2"] * 3
    assert "nginx-mesh-sidecar" not in mesh.ok("get", "deploy", "web", "-n", "shop", "-o", "yaml")
    metadata = mesh.pod("web")["metadata"]
    assert metadata["labels"]["nsm.nginx.com/deployment"] == "web"
    assert metadata["ownerReferences"][0]["kind"] == "Deployment"


def test_strict_shuts_the_outsider_out_within_a_second_and_live(mesh: LocalCli) -> None:
    assert status(mesh, "outsider", "default") == "200"
    assert status(mesh, "client", "shop") == "200"
    mesh.apply(MESH_CONFIG % "strict")
    time.sleep(1)
    assert status(mesh, "outsider", "default") != "200"
    assert status(mesh, "client", "shop") == "200"
    mesh.apply(MESH_CONFIG % "permissive")
    mesh.wait(lambda: status(mesh, "outsider", "default") == "200", 5)


def test_no_request_is_lost_while_the_mesh_changes_under_load(mesh: LocalCli) -> None:
    with MeshedLoad(mesh) as load:
        mesh.ok("scale", "deploy/web", "--replicas", "4", "-n", "shop")
        mesh.wait(lambda: "4/4" in mesh.ok("get", "deploy", "web", "-n", "shop"))
        mesh.apply(MESH_CONFIG % "strict")
        mesh.ok("restart", "deploy/web", "-n", "shop")
        mesh.ok("scale", "deploy/web", "--replicas", "1", "-n", "shop")
        mesh.wait(lambda: len(mesh.ok("get", "pods", "-n", "shop").splitlines()) == 3)
        mesh.apply(MESH_CONFIG % "permissive")
    assert load.failures == []
    assert load.requests > 100


class DetachedLoad(MeshedLoad):
    """The same, but not by `exec`, which ends with the daemon."""

    def __enter__(self) -> DetachedLoad:
        script = self._mesh.root / "load.py"
        script.write_text(LOAD)
        namespace = self._mesh.paths.pod_netns(self._mesh.pod("client")["metadata"]["uid"])
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "python3", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self


def served_certificate(mesh: LocalCli, address: str) -> str:
    """The certificate (PEM) that the sidecar of the pod with this address shows."""
    shown: list[str] = []

    def ask() -> None:
        netns.enter(mesh.paths.node_netns)
        shown.append(ssl.get_server_certificate((address, 8080), timeout=5))

    netns.run_in_thread(ask)
    return shown[0]


def test_no_request_is_lost_when_the_daemon_is_killed_and_started_again(mesh: LocalCli) -> None:
    with DetachedLoad(mesh) as load:
        os.kill(mesh.daemon_pid(), signal.SIGKILL)
        time.sleep(1)
        mesh.ok("up")
        mesh.ok("scale", "deploy/web", "--replicas", "3", "-n", "shop")
        mesh.wait(lambda: "3/3" in mesh.ok("get", "deploy", "web", "-n", "shop"))
    assert load.failures == []
    assert load.requests > 100


def test_no_request_is_lost_while_certificates_are_renewed(mesh: LocalCli) -> None:
    # Shorter than a flag can say: the settings that the mesh was made with, which this MeshConfig leaves alone.
    mesh.apply(MESH_CONFIG % "permissive")
    settings = mesh.paths.state / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "svid_ttl": 6}))
    os.kill(mesh.daemon_pid(), signal.SIGTERM)
    mesh.wait(lambda: mesh.run("get", "pods").returncode != 0)
    mesh.ok("up")
    address = mesh.pod("web")["status"]["podIP"]
    certificates = set()
    with DetachedLoad(mesh) as load:
        for _ in range(10):
            certificates.add(served_certificate(mesh, address))
            time.sleep(1)
    assert len(certificates) >= 3
    assert load.failures == []


def test_what_is_wrong_with_a_policy_is_an_event(mesh: LocalCli) -> None:
    limit = """
apiVersion: specs.smi.nginx.com/v1alpha2
kind: RateLimit
metadata: {name: first, namespace: shop}
spec:
  name: ten
  rate: 10r/s
  destination: {kind: Service, name: web, namespace: shop}
  rules: [{kind: HTTPRouteGroup, name: none}]
"""
    mesh.apply(limit)
    mesh.wait(lambda: "UpsertRateLimitFailed" in mesh.ok("describe", "ratelimit", "first", "-n", "shop"), 5)
    mesh.ok("delete", "rl", "first", "-n", "shop")


CALLERS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: %(name)s, namespace: shop}
spec:
  selector: {matchLabels: {app: %(name)s}}
  template:
    metadata: {labels: {app: %(name)s}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: client, command: [sleep, infinity]}]}
---
"""
LIMIT = """
apiVersion: specs.smi.nginx.com/v1alpha1
kind: RateLimit
metadata: {name: callers, namespace: shop}
spec:
  name: callers
  rate: 2r/m
  burst: 3
  delay: nodelay
  destination: {kind: StatefulSet, name: single}
  sources: [{kind: Deployment, name: one}, {kind: Deployment, name: two}]
---
apiVersion: v1
kind: Service
metadata: {name: single, namespace: shop}
spec: {clusterIP: 10.96.6.7, selector: {app: single}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: single, namespace: shop}
spec:
  serviceName: single
  selector: {matchLabels: {app: single}}
  template:
    metadata: {labels: {app: single}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        command: [python3, -u, -m, http.server, "8080", --bind, "::"]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
"""


def test_a_rate_limit_divides_its_rate_among_its_sources_and_no_others_though_they_share_an_account(
    mesh: LocalCli,
) -> None:
    mesh.apply("".join(CALLERS % {"name": name} for name in ("one", "two", "other")) + LIMIT)
    mesh.wait(lambda: "1/1" in mesh.ok("get", "statefulset", "single", "-n", "shop"))
    assert json.loads(mesh.ok("get", "rl", "callers", "-n", "shop", "-o", "json"))["apiVersion"].endswith("/v1alpha2")
    pods = json.loads(mesh.ok("get", "pods", "-n", "shop", "-o", "json"))["items"]
    names = [pod["metadata"]["name"] for pod in pods]
    code = GET.replace("10.96.6.6", "10.96.6.7")
    limited = ["200"] * 4 + ["503"] * 2
    for prefix, statuses in (("one-", limited), ("two-", limited), ("other-", ["200"] * 6)):
        caller = next(name for name in names if name.startswith(prefix))
        run = ("exec", caller, "-n", "shop", "-c", "client", "--", "python3", "-c", code)
        assert [mesh.ok(*run).strip() for _ in range(6)] == statuses
    mesh.ok("delete", "-n", "shop", "rl", "callers")
    mesh.ok("delete", "-n", "shop", "deployment", "one", "two", "other")
    mesh.ok("delete", "-n", "shop", "statefulset", "single")
    mesh.ok("delete", "-n", "shop", "service", "single")
