"""A real Prometheus that scrapes real sidecars, and what `top` makes of it."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.values import HostPort
from nginx_mesh.cli.local.mesh import LocalMesh
from nginx_mesh.traffic.documents import API_VERSION, parse_quantity
from tests.unit.traffic.metricsserver import PROCESS, Server

from .localcli import LocalCli
from .prometheus import Scraping, free_port
from .test_top import APP, top

pytestmark = pytest.mark.mesh

GRAFANA = Path(__file__).parents[2] / "deploy/observability/grafana"
BOUNDS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]
# Prints how long each of 150 requests took, milliseconds; one in six is slow. So slow all of them that a loaded machine
# does not tell much else than the sidecar.
LOAD = """
import http.client, json, time
connection = http.client.HTTPConnection("web.shop")
took = []
for number in range(150):
    began = time.perf_counter()
    connection.request("GET", "/slow" if number % 6 == 0 else "/missing" if number % 10 == 1 else "/")
    connection.getresponse().read()
    took.append(1000 * (time.perf_counter() - began))
print(json.dumps(took))
"""
SLOW = APP.replace(
    "def do_GET(self):", 'def do_GET(self):\n            time.sleep(0.06 if self.path == "/slow" else 0.012)'
).replace("import http.server", "import http.server, time")
# What dashboards also show: TCP, and policies that have something to do.
MORE = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: shop}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: app
        image: local
        command: [python3, -c, "import socketserver as s; s.ThreadingTCPServer(('', 7000), type('Echo', (s.StreamRequestHandler,), {'handle': lambda self: self.wfile.write(self.rfile.readline())})).serve_forever()"]
        ports: [{containerPort: 7000}]
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec:
  selector: {app: echo}
  ports: [{name: tcp, port: 7000}]
"""  # noqa: E501
POLICIES = """
apiVersion: specs.smi.nginx.com/v1alpha2
kind: RateLimit
metadata: {name: slow, namespace: shop}
spec:
  destination: {kind: Deployment, name: web}
  name: slow
  rate: 20r/s
  burst: 4
  delay: 1
---
apiVersion: specs.smi.nginx.com/v1alpha1
kind: CircuitBreaker
metadata: {name: web, namespace: shop}
spec:
  destination: {kind: Service, name: web, namespace: shop}
  errors: 1000
  timeoutSeconds: 10
"""
MIXED = """
import http.client, socket, threading
def call():
    connection = http.client.HTTPConnection("web.shop")
    for _ in range(10):
        connection.request("GET", "/")
        connection.getresponse().read()
threads = [threading.Thread(target=call) for _ in range(12)]
for thread in threads:
    thread.start()
for _ in range(5):
    with socket.create_connection(("echo.shop", 7000)) as connection:
        connection.sendall(b"hello\\n")
        assert connection.recv(100) == b"hello\\n"
for thread in threads:
    thread.join()
"""
PROMETHEUS = """
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: prometheus, namespace: monitoring}
data: {prometheus.yaml: "scrape_configs: []"}
---
apiVersion: v1
kind: Pod
metadata: {name: prometheus, namespace: monitoring, labels: {app: prometheus}}
spec:
  volumes: [{name: config, configMap: {name: prometheus}}]
  containers:
  - name: prometheus
    image: local
    command: [prometheus, --config.file=/config/prometheus.yaml, --storage.tsdb.path=/tmp/data]
    ports: [{containerPort: 9090}]
    readinessProbe: {httpGet: {path: /-/ready, port: 9090}, periodSeconds: 1}
    volumeMounts: [{name: config, mountPath: /config}]
---
apiVersion: v1
kind: Service
metadata: {name: prometheus, namespace: monitoring}
spec:
  selector: {app: prometheus}
  ports: [{name: http, port: 80, targetPort: 9090}]
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as found:
        found.ok("up", "-f", "-", stdin=(SLOW + MORE).encode())
        yield found


@pytest.fixture(scope="module")
def prometheus(mesh: LocalCli) -> Iterator[Scraping]:
    with Scraping(mesh) as found:
        yield found


def counts(found: Any) -> dict[tuple[str, str, str], tuple[str, str]]:
    """success and failure by resource, direction and peer."""
    counted = {}
    for item in found["items"]:
        peer = item["edge"]["resource"] or {"name": ""}
        metrics = {metric["name"]: metric["value"] for metric in item["metrics"]}
        key = item["resource"]["name"], item["edge"]["direction"], peer["name"]
        counted[key] = metrics["success_count"], metrics["failure_count"]
    return counted


def configure(mesh: LocalCli, address: HostPort) -> None:
    """What `local up --prometheus-address` does."""
    LocalMesh(mesh.paths).api().request("PATCH", "/mesh/settings", {"prometheus_address": address})


def by_daemon(mesh: LocalCli, path: str) -> Any:
    return LocalMesh(mesh.paths).api().get(f"/apis/{API_VERSION}{path}")


class Aggregated:
    """What kube-apiserver would be told by an `nginx-mesh-metrics` that asks this Prometheus."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __call__(self, path: str) -> Any:
        status, found, _ = asyncio.run(self._server.get(f"/apis/{API_VERSION}{path}", "proxy"))
        assert status == 200, found
        return found


@pytest.fixture(scope="module")
def ask(prometheus: Scraping, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aggregated]:
    server = Server(tmp_path_factory.mktemp("metrics"), prometheus.address.port)
    process = subprocess.Popen([*PROCESS, *server.arguments()])
    try:
        yield Aggregated(server)
    finally:
        process.terminate()
        process.wait()


def test_prometheus_and_the_daemon_tell_the_same(mesh: LocalCli, ask: Aggregated) -> None:
    took = sorted(json.loads(mesh.ok("exec", "deploy/client", "-n", "shop", "--", "python3", "-c", LOAD)))
    edges = "/namespaces/shop/deployments/client/edges"
    wanted = {("client", "to", "web"): ("135", "15")}
    mesh.wait(lambda: counts(by_daemon(mesh, edges)) == counts(ask(edges)) == wanted, 25)
    (item,) = ask(edges)["items"]
    for path in (
        "/namespaces",
        "/namespaces/shop",
        "/namespaces/shop/edges",
        "/deployments",
        "/namespaces/shop/pods",
        "/namespaces/shop/deployments/web",
        "/namespaces/shop/deployments/web/edges",
        "/namespaces/shop/statefulsets",
        "/namespaces/none/daemonsets",
    ):
        assert counts(ask(path)) == counts(by_daemon(mesh, path)), path

    latencies = {metric["name"]: parse_quantity(metric["value"]) for metric in item["metrics"]}
    graph = LocalMesh(mesh.paths).api().get("/mesh/graph")  # what the dashboard shows
    (drawn,) = [edge for edge in graph["edges"] if edge["from"] == "shop/deployment/client"]
    for share in (50, 90, 99):
        measured = took[round(share / 100 * len(took)) - 1]
        for reported in (latencies[f"p{share}_response_latency"], drawn[f"p{share}"]):
            assert abs(bisect_left(BOUNDS, measured) - bisect_left(BOUNDS, reported)) <= 1, (share, measured, reported)


def test_top_needs_no_mesh_where_it_is_given_a_prometheus(
    mesh: LocalCli, prometheus: Scraping, ask: Aggregated
) -> None:
    mesh.ok("exec", "deploy/client", "-n", "shop", "--", "python3", "-c", LOAD)
    mesh.wait(lambda: bool(counts(ask("/deployments"))))
    answer = top(mesh, "deploy/client", "-n", "shop", "--prometheus", str(prometheus.address), mesh=False)
    assert answer.stdout.splitlines()[2].split()[:2] == ["To", "web"], answer
    assert "cannot be used together" in top(mesh, "--prometheus", str(prometheus.address)).stderr


def test_prometheus_knows_whose_metrics_it_scraped(mesh: LocalCli, prometheus: Scraping) -> None:
    pods = json.loads(mesh.ok("get", "pods", "-n", "shop", "-o", "json"))["items"]
    (found_pod,) = [pod for pod in pods if pod["metadata"]["name"].startswith("web-")]
    (found,) = prometheus.query('nginxplus_http_requests_total{deployment="web"}')
    assert found["metric"] == {
        "__name__": "nginxplus_http_requests_total",
        "job": "nginx-mesh-sidecars",
        "instance": f"{found_pod['status']['podIP']}:8887",
        "namespace": "shop",
        "pod": found_pod["metadata"]["name"],
        "deployment": "web",
        "pod_template_hash": found_pod["metadata"]["labels"]["pod-template-hash"],
    }


def test_prometheus_scrapes_what_the_daemon_counts_of_itself(mesh: LocalCli, prometheus: Scraping) -> None:
    mesh.wait(lambda: len(prometheus.query('nginx_mesh_sidecars{job="nginx-mesh-control-plane"} > 0')) == 1)


def test_a_pod_that_is_gone_is_scraped_no_longer(mesh: LocalCli, prometheus: Scraping) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "brief", "namespace": "shop"}}
    spec = {"containers": [{"name": "app", "image": "local", "command": ["sleep", "infinity"]}]}
    mesh.apply(json.dumps({**pod, "spec": {**spec, "terminationGracePeriodSeconds": 0}}))
    mesh.wait(lambda: len(prometheus.query('up{pod="brief"} == 1')) == 1)
    mesh.ok("delete", "pod", "brief", "-n", "shop")
    mesh.wait(lambda: not prometheus.query('up{pod="brief"}'))


def test_every_panel_of_the_dashboards_shows_something(mesh: LocalCli, prometheus: Scraping) -> None:
    mesh.apply(POLICIES)
    mesh.ok("exec", "deploy/client", "-n", "shop", "--", "python3", "-c", MIXED)
    mesh.wait(lambda: shown(prometheus, "nginxplus_rate_limited_total > 0"))
    mesh.ok("exec", "deploy/client", "-n", "shop", "--", "python3", "-c", MIXED)
    for dashboard in sorted(GRAFANA.glob("*.json")):
        for panel in json.loads(dashboard.read_text())["panels"]:
            for target in panel["targets"]:
                expression = substituted(target["expr"])
                where = f"{dashboard.name}: {panel['title']}: {expression}"
                mesh.wait(lambda expression=expression: shown(prometheus, expression))  # type: ignore[misc]
                assert shown(prometheus, expression), where
    assert shown(prometheus, "sum(increase(nginxplus_stream_upstream_server_sent[1m])) > 0")
    assert shown(prometheus, "sum(increase(nginxplus_rate_delayed_total[1m])) > 0")


def substituted(expression: str) -> str:
    """With Grafana's variables as they are when all is chosen."""
    for variable, text in (("$__rate_interval", "30s"), ("$namespace", "shop"), ("$pod", ".*")):
        expression = expression.replace(variable, text)
    assert "$" not in expression
    return expression


def shown(prometheus: Scraping, expression: str) -> bool:
    """Whether an expression gives any number."""
    return any(math.isfinite(float(row["value"][1])) for row in prometheus.query(expression))


def test_the_alerts_are_loaded_and_none_fires(prometheus: Scraping) -> None:
    assert prometheus.rules() == 12
    assert prometheus.query('ALERTS{alertstate="firing"}') == []


def test_the_daemon_asks_the_prometheus_that_it_is_configured_with(mesh: LocalCli, prometheus: Scraping) -> None:
    configure(mesh, prometheus.address)
    mesh.ok("exec", "deploy/client", "-n", "shop", "--", "python3", "-c", LOAD)
    edges = "/namespaces/shop/deployments/client/edges"
    mesh.wait(lambda: ("client", "to", "web") in counts(by_daemon(mesh, edges)))

    configure(mesh, HostPort("127.0.0.1", free_port()))
    answer = top(mesh)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("Error from server (ServiceUnavailable): Prometheus at 127.0.0.1:")
    assert "does not answer: Connection refused" in answer.stderr


def test_a_service_of_the_mesh_may_be_the_prometheus(mesh: LocalCli) -> None:
    configure(mesh, HostPort("prometheus.monitoring", 80))
    assert 'no Service "prometheus" of namespace "monitoring" has an address' in top(mesh).stderr
    mesh.ok("up", "-f", "-", stdin=PROMETHEUS.encode())
    assert "Prometheus at prometheus.monitoring:80 has metrics of no sidecar: does it scrape them?" in top(mesh).stderr


def test_a_prometheus_that_is_gone_is_said(mesh: LocalCli, prometheus: Scraping) -> None:
    prometheus.stop()
    began = time.monotonic()
    answer = top(mesh, "--prometheus", str(prometheus.address), mesh=False)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"error: Prometheus at {prometheus.address} does not answer: ")
    assert time.monotonic() - began < 10
