"""Traffic metrics of a local mesh, from real requests to what `nginx-meshctl top` prints."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from .localcli import MESHCTL, LocalCli
from .manifests import SHOP, service

pytestmark = pytest.mark.mesh

TOP = [*MESHCTL, "top"]
WEB = """
apiVersion: v1
kind: ConfigMap
metadata: {name: app, namespace: shop}
data:
  app.py: |
    import http.server
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            self.send_response(404 if self.path == "/missing" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        def log_message(self, *args): pass
    http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      volumes: [{name: app, configMap: {name: app}}]
      containers:
      - name: app
        image: local
        command: [python3, /app/app.py]
        ports: [{containerPort: 8080, name: http}]
        volumeMounts: [{name: app, mountPath: /app}]
---
"""
CLIENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: shop}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      containers: [{name: app, image: local, command: [sleep, infinity]}]
"""
APP = SHOP + WEB + service("web", "shop", "app: web") + CLIENT
REQUESTS = """
import http.client
connection = http.client.HTTPConnection("web.shop")
for number in range(200):
    connection.request("GET", "/missing" if number % 10 == 0 else "/")
    connection.getresponse().read()
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as found:
        found.ok("up", "-f", "-", stdin=APP.encode())
        yield found


def top(paths: LocalCli, *arguments: str, mesh: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `nginx-meshctl top`, of this mesh unless the arguments say otherwise."""
    argv = [*TOP, *(["--mesh", paths.name] if mesh else []), *arguments]
    return subprocess.run(argv, env=paths.env, capture_output=True, text=True, check=False, timeout=30)


def documents(mesh: LocalCli, what: str) -> dict[tuple[str, str], dict[str, str]]:
    """success and failure of each resource and direction."""
    items: list[Any] = json.loads(top(mesh, what, "-n", "shop", "-o", "json").stdout)["items"]
    return {
        (item["resource"]["name"], item["edge"]["direction"]): {m["name"]: m["value"] for m in item["metrics"]}
        for item in items
    }


def test_top_counts_what_was_really_sent(mesh: LocalCli) -> None:
    assert "No traffic" in top(mesh, "-n", "shop").stdout
    mesh.ok("exec", "deploy/client", "-n", "shop", "--", "python3", "-c", REQUESTS)
    wanted = {"success_count": "180", "failure_count": "20"}

    def is_counted() -> bool:
        found = documents(mesh, "deployments").get(("web", "from"), {})
        return {name: found.get(name) for name in wanted} == wanted

    mesh.wait(is_counted, 20)
    assert {name: documents(mesh, "deployments")[("client", "to")][name] for name in wanted} == wanted

    lines = [line.split() for line in top(mesh, "-n", "shop").stdout.splitlines()]
    assert lines == [
        ["Deployment", "Incoming", "Success", "Outgoing", "Success", "NumRequests"],
        ["client", "90.00%", "200"],
        ["web", "90.00%", "200"],
    ]
    lines = [line.split() for line in top(mesh, "deploy/client", "-n", "shop").stdout.splitlines()]
    assert lines[1] == ["client"]
    assert lines[2][:3] == ["To", "web", "90.00%"]
    assert lines[2][-1] == "200"
    assert all(cell.endswith("ms") for cell in lines[2][3:6])
    assert [item[0] for item in documents(mesh, "namespaces")] == ["shop", "shop"]


def test_top_says_what_it_does_not_know(mesh: LocalCli) -> None:
    answer = top(mesh, "services")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "known are daemonsets, deployments, namespaces, pods, statefulsets" in answer.stderr
    answer = top(mesh, "pods/")
    assert "is not KIND/NAME" in answer.stderr
