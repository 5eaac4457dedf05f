"""Traces of a strict local mesh, from applications that pass them on to a collector that is outside of the mesh."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .localcli import LocalCli

pytestmark = pytest.mark.mesh

PEERS = Path(__file__).parent / "peers"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT, SERVER = 3, 2
UNSET, ERROR = 0, 2
# `/chain` calls `web` and passes its trace on with a span of its own; all else tells the headers that came.
APP = """
import http.client, http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        told = {"got": self.headers.get("traceparent"), "state": self.headers.get("tracestate")}
        if self.path.startswith("/chain"):
            version, trace, parent, flags = told["got"].split("-")
            connection = http.client.HTTPConnection("web")
            own = f"{version}-{trace}-00000000000000aa-{flags}"
            connection.request("GET", "/end" + self.path, headers={"traceparent": own})
            told["next"] = json.load(connection.getresponse())
        body = json.dumps(told).encode()
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
# Prints the answers and how long they took.
REQUESTS = """
import http.client, json, sys, time
url, count, *headers = sys.argv[1:]
host, _, path = url.partition("/")
connection, told, times = http.client.HTTPConnection(host), [], []
for _ in range(int(count)):
    start = time.monotonic()
    connection.request("GET", "/" + path, headers=dict(header.split(": ") for header in headers))
    answer = connection.getresponse()
    told.append([answer.status, answer.read().decode()])
    times.append(time.monotonic() - start)
print(json.dumps({"told": told, "times": times}))
"""


def deployment(name: str, *command: str, namespace: str = "shop", port: int = 8080) -> dict[str, Any]:
    mounts = [{"name": "files", "mountPath": "/files"}]
    container = {"name": "app", "command": list(command), "volumeMounts": mounts, "ports": [{"containerPort": port}]}
    spec = {
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "files", "configMap": {"name": "files"}}],
        "containers": [container],
    }
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }


def service(name: str, namespace: str = "shop", **ports: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": name},
            "ports": [
                {"name": key, "port": port, "targetPort": 8080 if port == 80 else port} for key, port in ports.items()
            ],
        },
    }


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def files(namespace: str, **data: str) -> dict[str, Any]:
    metadata = {"name": "files", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


COLLECTOR_PORTS = {f"tcp-{number}": 4317 + number for number in range(5)}
WORLD = [
    namespace("shop", **{"injector.nsm.nginx.com/auto-inject": "enabled"}),
    namespace("telemetry"),
    files("shop", **{"app.py": APP, "requests.py": REQUESTS}),
    files("telemetry", **{"collector.py": (PEERS / "otlp_collector.py").read_text()}),
    deployment("client", "sleep", "infinity"),
    *(deployment(name, "python3", "/files/app.py") for name in ("front", "web")),
    *(service(name, http=80) for name in ("front", "web")),
    deployment("collector", "python3", "/files/collector.py", namespace="telemetry", port=4317),
    service("collector", "telemetry", **COLLECTOR_PORTS),
]


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as found:
        telemetry = "type=otlp,host=collector.telemetry,port=4317"
        flags = ("--mtls-mode", "strict", "--telemetry-exporters", telemetry, "--telemetry-sampler-ratio", "1")
        found.ok("up", "-f", "-", *flags, stdin=yaml.safe_dump_all(WORLD).encode())
        found.wait(lambda: '"port"' in found.ok("logs", "deploy/collector", "-n", "telemetry"))
        yield found


def configure(mesh: LocalCli, *, ratio: float, host: str = "collector.telemetry", port: int = 4317) -> None:
    telemetry = {"exporters": {"otlp": {"host": host, "port": port}}, "samplerRatio": ratio}
    config = {
        "apiVersion": "nsm.nginx.com/v1alpha2",
        "kind": "MeshConfig",
        "metadata": {"name": "nginx-mesh-config", "namespace": "nginx-mesh"},
        "spec": {"meshConfigClassName": "nginx-mesh-config-class", "mtls": {"mode": "strict"}, "telemetry": telemetry},
    }
    mesh.apply(yaml.safe_dump(config))


def get(mesh: LocalCli, url: str, *headers: str, count: int = 1) -> tuple[list[Any], list[float]]:
    """Statuses and what the applications told, and the seconds that took."""
    argv = ("python3", "/files/requests.py", url, str(count), *headers)
    found = json.loads(mesh.ok("exec", "deploy/client", "-n", "shop", "--", *argv))
    return [(status, json.loads(told)) for status, told in found["told"]], found["times"]


def spans(mesh: LocalCli, path: str) -> list[Any]:
    """What the collector has got about requests for a path."""
    lines = mesh.ok("logs", "deploy/collector", "-n", "telemetry").splitlines()[1:]
    return [span for line in lines if (span := json.loads(line))["attributes"].get("url.path") == path]


def exported(mesh: LocalCli, path: str, n: int) -> dict[tuple[str, int], Any]:
    """That many spans about a path, by workload and kind."""
    mesh.wait(lambda: len(spans(mesh, path)) >= n)
    return {(span["resource"]["service.name"], span["kind"]): span for span in spans(mesh, path)}


def test_one_trace_goes_through_applications_and_sidecars_in_strict_mode(mesh: LocalCli) -> None:
    ((status, told),), _ = get(mesh, "front/chain/1", "tracestate: vendor=1")
    assert status == 200
    first = exported(mesh, "/chain/1", 2)
    second = exported(mesh, "/end/chain/1", 2)
    root, front, calling, web = (
        first["client", CLIENT],
        first["front", SERVER],
        second["front", CLIENT],
        second["web", SERVER],
    )
    assert {span["trace"] for span in (root, front, calling, web)} == {told["got"].split("-")[1]}
    assert (root["parent"], front["parent"], web["parent"]) == ("", root["span"], calling["span"])
    assert told["got"].split("-")[2] == front["span"]
    assert calling["parent"] == "00000000000000aa"  # the application's own
    assert told["next"]["got"].split("-")[2] == web["span"]
    assert root["start"] <= front["start"] <= calling["start"] <= web["start"]
    assert web["start"] < front["end"]


def test_spans_say_what_the_conventions_want(mesh: LocalCli) -> None:
    ((status, _),), _ = get(mesh, "web/missing", "User-Agent: test/1.0")
    assert status == 404
    found = exported(mesh, "/missing", 2)
    client, server = found["client", CLIENT], found["web", SERVER]
    web = "spiffe://example.org/ns/shop/sa/default"
    for span in (client, server):
        assert span["scope"] == "nginx-mesh"
        assert span["name"] == "GET"
        assert (
            span["attributes"].items()
            >= {
                "http.request.method": "GET",
                "http.response.status_code": 404,
                "url.path": "/missing",
                "url.scheme": "http",
                "server.address": "web",
                "user_agent.original": "test/1.0",
                "network.protocol.version": "1.1",
                "nginx_mesh.mtls": True,
                "nginx_mesh.client.spiffe_id": web,
                "nginx_mesh.server.spiffe_id": web,
            }.items()
        )
    # not found is an error of the caller's
    assert (client["status"], server["status"]) == (ERROR, UNSET)
    pods = json.loads(mesh.ok("get", "pods", "-n", "shop", "-o", "json"))["items"]
    (pod,) = [pod for pod in pods if pod["metadata"]["labels"]["app"] == "web"]
    resource = {
        "service.name": "web",
        "service.namespace": "shop",
        "k8s.namespace.name": "shop",
        "k8s.deployment.name": "web",
        "k8s.pod.name": pod["metadata"]["name"],
        "k8s.pod.uid": pod["metadata"]["uid"],
        "k8s.node.name": "local",
    }
    assert server["resource"] == resource
    assert client["attributes"]["network.peer.address"] == pod["status"]["podIP"]
    assert client["attributes"]["network.peer.port"] == 8080
    assert client["attributes"]["nginx_mesh.cluster"] == "shop/web:80"


def test_the_ratio_changes_live_and_a_parent_decides(mesh: LocalCli) -> None:
    configure(mesh, ratio=0)
    mesh.wait(lambda: get(mesh, "web/off")[0][0][1]["got"].endswith("-02"))
    get(mesh, "web/unsampled", count=20)
    get(mesh, "web/sampled", f"traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01")
    found = exported(mesh, "/sampled", 2)
    assert found["client", CLIENT]["parent"] == "00f067aa0ba902b7"
    assert {span["trace"] for span in found.values()} == {TRACE_ID}
    assert spans(mesh, "/unsampled") == []
    configure(mesh, ratio=1)
    mesh.wait(lambda: get(mesh, "web/on")[0][0][1]["got"].endswith("-03"))
    exported(mesh, "/on", 2)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("collector.telemetry", 4318),
        ("collector.telemetry", 4319),
        ("collector.telemetry", 4320),
        ("collector.telemetry", 4321),
        ("collector.telemetry", 4444),
        ("nobody.telemetry", 4317),
    ],
    ids=["slow", "failing", "lying", "shouting", "absent", "unknown"],
)
def test_no_request_is_concerned_by_a_bad_collector(mesh: LocalCli, host: str, port: int) -> None:
    configure(mesh, ratio=1, host=host, port=port)
    answers, times = get(mesh, "web/bad", count=300)
    assert [status for status, _ in answers] == [200] * 300
    mesh.wait(lambda: f"the collector {host}:{port} takes no spans" in mesh.daemon_log())
    configure(mesh, ratio=0)
    _, untraced = get(mesh, "web/good", count=300)
    assert statistics.median(times) < 3 * statistics.median(untraced) + 0.005


def test_a_collector_that_is_good_again_gets_spans_again(mesh: LocalCli) -> None:
    configure(mesh, ratio=1)
    mesh.wait(lambda: get(mesh, "web/again")[0][0][1]["got"].endswith("-03"))
    exported(mesh, "/again", 2)
