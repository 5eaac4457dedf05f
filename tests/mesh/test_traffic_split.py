"""TrafficSplits and CircuitBreakers as people use them: manifests in a local mesh, and what callers get then."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest
import yaml

from nginx_mesh.local.net import netns

from .localcli import LocalCli
from .manifests import PEERS, SHOP, idle_pod, peers, service
from .shares import assert_shares

pytestmark = pytest.mark.mesh

WEB, V1 = "10.96.8.1", "10.96.8.2"

SERVER = """
apiVersion: v1
kind: Pod
metadata: {name: %(name)s, namespace: shop, labels: {app: %(app)s, version: %(name)s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    command: [sh, -c, "%(command)s"]
    ports: [{containerPort: 8080}, {containerPort: 50051}, {containerPort: 2525}]
    readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
    volumeMounts: [{name: peers, mountPath: /peers}]
  volumes: [{name: peers, configMap: {name: peers}}]
---
"""
COMMAND = (
    "python3 /peers/grpc_server.py --port 50051 & python3 /peers/tcp_server.py --mode greeting --port 2525 &"
    " exec python3 /peers/http_server.py --port 8080"
)


def service_of_three_ports(name: str, address: str, selector: str) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  clusterIP: {address}
  selector: {{{selector}}}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: grpc, port: 90, targetPort: 50051}}
  - {{name: tcp, port: 25, targetPort: 2525}}
---
"""


# v2 is headless, as is flat, the root that has the same pods as web.
V2 = """
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec:
  clusterIP: None
  selector: {version: v2}
  ports:
  - {name: http, port: 8080}
  - {name: grpc, port: 50051}
  - {name: tcp, port: 2525}
---
"""
APP = (
    SHOP
    + service_of_three_ports("web", WEB, "app: web")
    + service_of_three_ports("v1", V1, "version: v1")
    + V2
    + service("flat", "shop", "app: web", port=8080, address="None")
    + service("spare", "shop", "app: spare", address="10.96.8.3")
    + idle_pod("client")
    + peers("http_server.py", "grpc_server.py", "tcp_server.py")
)


class Shop:
    """The mesh, and its client's calls."""

    def __init__(self, mesh: LocalCli) -> None:
        self.mesh = mesh
        self._pods = mesh.pods()
        self._namespace = mesh.paths.pod_netns(self._pods["client"]["metadata"]["uid"])

    def address(self, pod: str) -> str:
        """The IP of a pod."""
        return str(self._pods[pod]["status"]["podIP"])

    def http(
        self, number: int = 1, host: str = WEB, port: int = 80, path: str = "/bytes/1", **headers: str
    ) -> Counter[str]:
        """Who answered so many requests on a connection that is kept, by status where it was nobody with 200."""
        return netns.run_in_thread(lambda: _requests(number, host, port, path, headers), self._namespace)

    def greetings(self, number: int) -> Counter[str]:
        """Who greeted so many TCP connections to the root."""
        return netns.run_in_thread(lambda: Counter(_greeting(WEB, 25) for _ in range(number)), self._namespace)

    def load(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a load from the client's pod."""
        argv = ["ip", "netns", "exec", self._namespace, sys.executable, str(PEERS / "load.py"), *arguments]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def circuit(self, service: str) -> str:
        """The state of the circuit to a Service's port, as the client's sidecar has it."""
        status = json.loads(netns.run_in_thread(lambda: _exchange("127.0.0.1", 8886, "/status"), self._namespace))
        return str(status["circuit_breakers"].get(f"shop/{service}", {}).get("state"))

    def split(self, root: str, weights: Mapping[str, int], *groups: str, name: str = "s") -> None:
        """Apply a TrafficSplit."""
        spec = {
            "service": root,
            "backends": [{"service": service, "weight": weight} for service, weight in weights.items()],
            "matches": [{"kind": "HTTPRouteGroup", "name": group} for group in groups],
        }
        self.apply("split.smi-spec.io/v1alpha3", "TrafficSplit", name, spec)

    def breaker(self, name: str, service: str, **spec: object) -> None:
        """Apply a CircuitBreaker of 3 errors."""
        destination = {"kind": "Service", "name": service}
        whole = {"destination": destination, "errors": 3, "timeoutSeconds": 60, **spec}
        self.apply("specs.smi.nginx.com/v1alpha1", "CircuitBreaker", name, whole)

    def apply(self, version: str, kind: str, name: str, spec: Mapping[str, object]) -> None:
        """Apply a policy."""
        metadata = {"name": name, "namespace": "shop"}
        self.mesh.apply(yaml.safe_dump({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a policy is in force."""
        self.mesh.wait(condition, 5)


def _requests(number: int, host: str, port: int, path: str, headers: Mapping[str, str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    connection = http.client.HTTPConnection(host, port, timeout=10)
    for _ in range(number):
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
        counted[answer.headers.get("X-Served-By", "") if answer.status == 200 else str(answer.status)] += 1
    connection.close()
    return counted


def _exchange(host: str, port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", path)
    body = connection.getresponse().read()
    connection.close()
    return body


def _greeting(host: str, port: int) -> str:
    with socket.create_connection((host, port), 5) as peer:
        return peer.makefile().readline().split()[1]


@pytest.fixture(scope="module")
def running() -> Iterator[Shop]:
    pods = "".join(
        SERVER % {"name": name, "app": app, "command": COMMAND}
        for name, app in (("v1", "web"), ("v2", "web"), ("spare", "spare"))
    )
    with LocalCli() as mesh:
        mesh.ok("up", "-f", "-", "--mtls-mode", "strict", stdin=f"{APP}{pods}".encode())
        yield Shop(mesh)


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    yield running
    for kind in ("trafficsplits", "circuitbreakers", "ratelimits", "httproutegroups"):
        names = running.mesh.ok("get", kind, "-n", "shop", "-o", "name").split()
        if names:
            running.mesh.ok("delete", *names, "-n", "shop")


def test_ten_thousand_requests_are_divided_by_weight_and_a_headless_backend_has_its_share(shop: Shop) -> None:
    shop.split("web", {"v1": 80, "v2": 15, "spare": 5})
    shop.until(lambda: "spare" in shop.http(100))
    assert_shares(shop.http(10_000), {"v1": 80, "v2": 15, "spare": 5})


def test_weights_as_flagger_sets_them_lose_no_request(shop: Shop) -> None:
    shop.split("web", {"v1": 100, "v2": 0})
    shop.until(lambda: set(shop.http(20)) == {"v1"})
    load = shop.load("--http", f"http://{WEB}/echo", "--grpc", f"{WEB}:90", "--rate", "100", "--seconds", "8")
    try:
        begin = time.monotonic()
        for second, share in enumerate((10, 30, 50, 70, 100, 0, 100)):
            time.sleep(max(0, begin + second + 1 - time.monotonic()))
            shop.split("web", {"v1": 100 - share, "v2": share})
        answer = json.loads(load.communicate(timeout=30)[0])
    finally:
        load.kill()
        load.wait()
    assert answer["failed"] == 0, answer
    assert answer["sent"] > 500
    assert set(answer["served_by"]) == {"v1", "v2"}
    assert set(shop.http(20)) == {"v2"}


def test_requests_that_match_are_diverted_and_the_rest_are_not(shop: Shop) -> None:
    matches = [{"name": "insiders", "headers": {"X-Canary": "^yes$"}}, {"name": "beta", "pathRegex": "^/bytes/7$"}]
    shop.apply("specs.smi-spec.io/v1alpha3", "HTTPRouteGroup", "canary", {"matches": matches})
    shop.split("web", {"spare": 1}, "canary")
    shop.until(lambda: set(shop.http(5, x_canary="yes")) == {"spare"})
    assert shop.http(20, path="/bytes/7") == {"spare": 20}
    assert set(shop.http(20)) <= {"v1", "v2"}
    assert set(shop.http(20, x_canary="no")) <= {"v1", "v2"}
    shop.split("web", {"spare": 1}, "missing")
    shop.until(lambda: set(shop.http(5, x_canary="yes")) <= {"v1", "v2"})


def test_grpc_is_split_by_call_and_tcp_by_connection(shop: Shop) -> None:
    shop.split("web", {"v1": 0, "v2": 1})
    shop.until(lambda: set(shop.http(5)) == {"v2"})
    load = shop.load("--grpc", f"{WEB}:90", "--rate", "200", "--seconds", "10", "--total", "50")
    answer = json.loads(load.communicate(timeout=30)[0])
    assert (answer["failed"], set(answer["served_by"])) == (0, {"v2"}), answer
    assert shop.greetings(10) == {"v2": 10}
    shop.split("web", {"v1": 1, "v2": 1})
    shop.until(lambda: set(shop.greetings(20)) == {"v1", "v2"})


def test_a_headless_root_is_split_at_its_pods_addresses(shop: Shop) -> None:
    first = shop.address("v1")
    assert set(shop.http(10, first, 8080)) == {"v1"}
    shop.split("flat", {"v1": 1, "spare": 1})
    shop.until(lambda: "spare" in shop.http(20, first, 8080))
    assert_shares(shop.http(500, first, 8080), {"v1": 1, "spare": 1})
    assert set(shop.http(10)) <= {"v1", "v2"}, "the other Service of these pods is left alone"
    shop.mesh.ok("delete", "trafficsplit", "s", "-n", "shop")
    shop.until(lambda: set(shop.http(10, first, 8080)) == {"v1"})


def test_a_circuit_opens_sends_callers_to_the_fallback_and_closes_after_a_good_trial(shop: Shop) -> None:
    shop.breaker("b", "v1", timeoutSeconds=2, fallback={"service": "shop/spare"})
    shop.until(lambda: shop.http(1, V1) == {"v1": 1} and shop.circuit("v1:80") == "closed")
    assert shop.http(3, V1, path="/status/500") == {"500": 3}
    assert shop.circuit("v1:80") == "open"
    assert shop.http(20, V1) == {"spare": 20}
    shop.until(lambda: shop.circuit("v1:80") == "half-open")
    assert shop.http(5, V1) == {"v1": 5}
    assert shop.circuit("v1:80") == "closed"


def test_limits_splits_and_breakers_work_in_a_chain(shop: Shop) -> None:
    """A backend over its limit fails, its circuit opens, and its fallback answers the backend's share."""
    destination = {"kind": "Service", "name": "v2"}
    limit = {"destination": destination, "name": "few", "rate": "1r/m"}
    shop.apply("specs.smi.nginx.com/v1alpha2", "RateLimit", "few", limit)
    shop.breaker("backend", "v2", fallback={"service": "shop/spare"})
    shop.split("web", {"v2": 1})
    shop.until(lambda: set(shop.http(5)) == {"spare"})
    assert shop.circuit("v2:8080") == "open"
    shop.breaker("root", "web")
    shop.until(lambda: shop.circuit("web:80") == "closed")
    assert shop.http(3, path="/status/500") == {"500": 3}
    assert shop.circuit("web:80") == "open"
    assert shop.http(5) == {"503": 5}, "the root's circuit comes first, and has no fallback"


def test_of_two_splits_the_older_counts_and_the_other_is_warned_about(shop: Shop) -> None:
    shop.split("web", {"v1": 1}, name="z")
    shop.until(lambda: set(shop.http(10)) == {"v1"})
    time.sleep(1)  # creation is known to the second
    shop.split("web", {"v2": 1}, name="a")
    shop.mesh.wait(lambda: "TrafficSplit shop/z splits" in shop.mesh.ok("describe", "ts", "a", "-n", "shop"), 5)
    assert set(shop.http(10)) == {"v1"}
    shop.mesh.ok("delete", "trafficsplit", "z", "-n", "shop")
    shop.until(lambda: set(shop.http(10)) == {"v2"})
