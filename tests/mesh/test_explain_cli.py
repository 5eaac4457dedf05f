"""`nginx-meshctl explain` in a local mesh: what it says of a request is what the same request then gets."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .localcli import LocalCli
from .manifests import SHOP, service, traffic_split, traffic_target

pytestmark = pytest.mark.mesh

SERVER = """
import socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path.rpartition("/")[2] or 200) if "/status/" in self.path else 200)
        self.send_header("X-Served-By", sys.argv[1])
        self.end_headers()

    do_POST = do_DELETE = do_GET

class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6

Server(("::", 8080), Handler).serve_forever()
"""
GREETER = """
import socket
listener = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    peer, _ = listener.accept()
    peer.sendall(b"hello")
    peer.close()
"""
GREETED = "import socket; print(socket.create_connection(('clock.shop', 7000), 5).recv(10).decode() or 'closed')"


def workload(name: str, code: str, port: str, *, sidecar: bool = True, annotation: str = "") -> str:
    """A Deployment of one pod, with an account of its own."""
    inject = "" if sidecar else ", injector.nsm.nginx.com/auto-inject: disabled"
    return f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: shop}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}{inject}}}, annotations: {{{annotation}}}}}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 1
      containers:
      - name: {name}
        command: [python3, -u, -c, {json.dumps(code)}, {name}]
        ports: [{{containerPort: {port}}}]
---
"""


OUTSIDE = """
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
"""


def caller(name: str, namespace: str = "shop") -> str:
    return f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {namespace}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  serviceAccountName: {name}
  terminationGracePeriodSeconds: 1
  containers: [{{name: {name}, command: [sleep, infinity]}}]
---
"""


APP = (
    SHOP
    + workload("web", SERVER, "8080")
    + workload("next", SERVER, "8080")
    + workload("bare", SERVER, "8080", sidecar=False)
    + workload("open", SERVER, "8080", annotation='config.nsm.nginx.com/ignore-incoming-ports: "8080"')
    + workload("past", SERVER, "8080", annotation='config.nsm.nginx.com/ignore-outgoing-ports: "80"')
    + workload("clock", GREETER, "7000")
    + service("web", "shop", "app: web")
    + service("grpc", "shop", "app: web", protocol="grpc", port=50051)
    + service("heads", "shop", "app: web", address="None")
    + service("next", "shop", "app: next")
    + service("bare", "shop", "app: bare")
    + service("open", "shop", "app: open")
    + service("empty", "shop", "app: nothing")
    + OUTSIDE
    + service("clock", "shop", "app: clock", protocol="tcp", port=7000, target=7000)
    + caller("client")
    + caller("outsider", "default")
)
ROUTES = """
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: routes, namespace: shop}
spec:
  matches:
  - {name: items, pathRegex: "^/items", methods: [GET]}
  - {name: testers, headers: {X-Test: "^yes$"}}
---
apiVersion: specs.smi-spec.io/v1alpha3
kind: TCPRoute
metadata: {name: any, namespace: shop}
---
"""


def target(destination: str, source: str, rule: str = "") -> str:
    return traffic_target(f"to-{destination}", destination=destination, source=source, rule=rule)


ITEMS = "{kind: HTTPRouteGroup, name: routes, matches: [items]}"
TESTERS = """
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: testers, namespace: shop}
spec: {matches: [{name: testers, headers: {X-Test: "^yes$"}}]}
---
"""
BREAKER = """
apiVersion: specs.smi.nginx.com/v1alpha1
kind: CircuitBreaker
metadata: {name: breaker, namespace: shop}
spec: {destination: {kind: Service, name: web}, errors: 1, timeoutSeconds: 60%s}
---
"""
LIMIT = """
apiVersion: specs.smi.nginx.com/v1alpha2
kind: RateLimit
metadata: {name: limit, namespace: shop}
spec: {destination: {kind: Service, name: web}, name: few, rate: 1r/m, burst: 1, delay: nodelay}
---
"""
STRICT = """
apiVersion: nsm.nginx.com/v1alpha2
kind: MeshConfig
metadata: {name: nginx-mesh-config, namespace: nginx-mesh}
spec: {meshConfigClassName: nginx-mesh-config-class, mtls: {mode: %s}}
---
"""


class Explained:
    """A local mesh with the application, and what is asked of it."""

    def __init__(self, mesh: LocalCli) -> None:
        self.mesh = mesh
        self._applied: list[str] = []

    def apply(self, manifest: str) -> None:
        """Put policies in force, until the test ends."""
        self._applied.append(manifest)
        self.mesh.apply(manifest)

    def undo(self) -> None:
        """Take away what was applied."""
        for manifest in self._applied:
            self.mesh.ok("delete", "-f", "-", "--ignore-not-found", stdin=manifest.encode())
        self._applied.clear()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`nginx-meshctl explain`."""
        return self.mesh.meshctl("explain", "--mesh", self.mesh.name, *arguments)

    def of(self, to: str, *arguments: str, origin: str = "shop/client") -> dict[str, Any]:
        """An explanation as data."""
        done = self.run("--from", origin, "--to", to, "-o", "json", *arguments)
        assert done.returncode == 0, done.stderr + self.mesh.daemon_log()
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def until(self, verdict: str, by: str, to: str, *arguments: str, origin: str = "shop/client") -> dict[str, Any]:
        """The explanation, as soon as the sidecars have what was applied: `by` is the deciding object, "" for any."""
        found: dict[str, Any] = {}

        def told() -> bool:
            found.update(self.of(to, *arguments, origin=origin))
            decides = found["deciding"] or {}
            return bool(found["verdict"] == verdict and by in decides.get("object", ""))

        self.mesh.wait(told)
        return found

    def really(
        self, host: str, *arguments: str, pod: str = "client", namespace: str = "shop", container: str = ""
    ) -> tuple[int, str]:
        """The status that a request gets, and who answered."""
        command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %header{x-served-by}", *arguments, host]
        out = self.mesh.ok("exec", pod, "-n", namespace, "-c", container or pod, "--", *command)
        status, _, served = out.strip().partition(" ")
        return int(status), served


@pytest.fixture(scope="module")
def shared() -> Iterator[Explained]:
    with LocalCli() as mesh:
        mesh.ok("up")
        mesh.apply(APP)
        mesh.wait_ready()
        yield Explained(mesh)


@pytest.fixture
def explained(shared: Explained) -> Iterator[Explained]:
    yield shared
    shared.undo()


def objects(found: dict[str, Any]) -> list[str]:
    """All objects that steps name."""
    steps = [*found["steps"], *(step for way in found["ways"] for step in way["steps"])]
    steps += [step for way in found["ways"] for called in way["called"] for step in called["steps"]]
    return [step["object"] for step in steps]


def ends(found: dict[str, Any]) -> Sequence[str]:
    """The pods where a request may end, without the part of their names that is random."""
    return [called["pod"].rsplit("-", 2)[0] for way in found["ways"] for called in way["called"]]


def test_a_request_that_nothing_forbids_is_allowed(explained: Explained) -> None:
    found = explained.until("allowed", "", "shop/web")
    assert ends(found) == ["shop/web"]
    assert explained.really("http://web.shop/") == (200, "web")


def test_a_denied_path_names_the_target_that_does_not_grant_it_and_a_granted_one_the_target_that_does(
    explained: Explained,
) -> None:
    explained.apply(ROUTES + target("web", "client", ITEMS))
    denied = explained.until("refused", "", "shop/web", "--path", "/admin")
    assert "TrafficTarget shop/to-web names the caller" in denied["summary"]
    assert denied["deciding"]["status"] == explained.really("http://web.shop/admin")[0] == 403
    allowed = explained.of("shop/web", "--path", "/items/1")
    assert allowed["verdict"] == "allowed"
    assert "TrafficTarget shop/to-web" in objects(allowed)
    assert explained.really("http://web.shop/items/1") == (200, "web")
    other = explained.of("shop/web", "--path", "/items/1", "--method", "DELETE")
    assert other["deciding"]["status"] == explained.really("http://web.shop/items/1", "-X", "DELETE")[0] == 403


def test_grpc_is_refused_in_its_own_words(explained: Explained) -> None:
    explained.apply(ROUTES + target("web", "next"))
    found = explained.until("refused", "", "shop/grpc", "--path", "/test.Peer/Unary")
    assert (found["deciding"]["status"], found["deciding"]["grpcStatus"]) == (200, 7)
    assert "PERMISSION_DENIED" in found["summary"]
    assert found["request"]["method"] == "POST"
    url = "http://grpc.shop:50051/test.Peer/Unary"
    command = [
        "curl",
        "-sS",
        "--http2-prior-knowledge",
        "-X",
        "POST",
        "-H",
        "content-type: application/grpc",
        "-D",
        "-",
    ]
    head = explained.mesh.ok("exec", "client", "-n", "shop", "-c", "client", "--", *command, url)
    assert "grpc-status: 7" in head


def test_a_caller_without_a_sidecar_is_refused_in_strict_mode(explained: Explained) -> None:
    assert explained.of("shop/web", origin="default/outsider")["verdict"] == "allowed"
    assert explained.really("http://web.shop/", pod="outsider", namespace="default")[0] == 200
    explained.mesh.apply(STRICT % "strict")
    try:
        found = explained.until("refused", "", "shop/web", origin="default/outsider")
        assert found["deciding"]["step"] == "mode"
        assert found["deciding"]["status"] == 400
        assert explained.really("http://web.shop/", pod="outsider", namespace="default")[0] == 400
        # and what has no sidecar is not called: a cluster of strict callers has it not
        bare = explained.until("refused", "", "shop/bare")
        assert bare["deciding"]["status"] == explained.really("http://bare.shop/")[0] == 503
    finally:
        explained.mesh.apply(STRICT % "permissive")


def test_a_pod_without_a_sidecar_judges_nothing(explained: Explained) -> None:
    found = explained.until("allowed", "", "shop/bare")
    (called,) = found["ways"][0]["called"]
    assert [step["step"] for step in called["steps"]] == ["sidecar"]
    assert explained.really("http://bare.shop/") == (200, "bare")


def test_ports_that_pass_sidecars_by_are_judged_by_none(explained: Explained) -> None:
    explained.apply(target("open", "next") + target("web", "next"))
    explained.until("refused", "", "shop/web")
    found = explained.of("shop/open")
    assert (found["verdict"], [step["step"] for step in found["ways"][0]["called"][0]["steps"]]) == (
        "allowed",
        ["sidecar"],
    )
    assert explained.really("http://open.shop/") == (200, "open")
    past = explained.of("shop/web", origin="shop/past")
    assert (past["caller"]["sidecar"], past["deciding"]["step"], past["deciding"]["status"]) == (False, "access", 403)
    pod = past["caller"]["pod"].partition("/")[2]
    assert explained.really("http://web.shop/", pod=pod, container="past")[0] == 403


def test_what_is_outside_of_the_mesh_is_told_and_refused_in_strict_mode(explained: Explained) -> None:
    found = explained.of("shop/outside")
    assert found["verdict"] == "unknown", "whoever answers there cannot be asked"
    assert "is nothing that the mesh knows" in found["steps"][0]["message"]
    assert explained.of("shop/outside", origin="default/outsider")["verdict"] == "unknown"
    explained.mesh.apply(STRICT % "strict")
    try:
        found = explained.until("refused", "MeshConfig mtls.mode", "shop/outside")
        assert (found["deciding"]["step"], found["deciding"]["status"]) == ("mode", None)
    finally:
        explained.mesh.apply(STRICT % "permissive")


def test_a_split_is_followed_where_its_match_forces_it(explained: Explained) -> None:
    explained.apply(TESTERS + traffic_split("canary", "web", {"web": 0, "next": 1}, match="testers"))
    explained.mesh.wait(lambda: "TrafficSplit shop/canary" in objects(explained.of("shop/web")))
    assert ends(explained.of("shop/web")) == ["shop/web"]
    assert ends(explained.of("shop/web", "--header", "X-Test: yes")) == ["shop/next"]
    assert explained.really("http://web.shop/") == (200, "web")
    assert explained.really("http://web.shop/", "-H", "X-Test: yes") == (200, "next")


def test_ways_of_a_split_that_end_differently_are_told_apart(explained: Explained) -> None:
    explained.apply(traffic_split("canary", "web", {"web": 3, "next": 1}) + target("next", "web"))
    found = explained.until("mixed", "", "shop/web")
    assert {way["cluster"]: (way["share"], way["verdict"]) for way in found["ways"]} == {
        "shop/web:80": (0.75, "allowed"),
        "shop/next:80": (0.25, "refused"),
    }
    assert "25 % of requests to shop/next:80: refused with 403" in found["summary"]


def test_a_limit_that_is_exhausted_refuses(explained: Explained) -> None:
    explained.apply(LIMIT)
    explained.mesh.wait(lambda: "RateLimit shop/limit" in objects(explained.of("shop/web")))
    assert [explained.really("http://web.shop/")[0] for _ in range(2)] == [200, 200]
    for _ in range(5):
        found = explained.of("shop/web")
        assert (found["verdict"], found["deciding"]["object"]) == ("refused", "RateLimit shop/limit")
    assert found["deciding"]["status"] == explained.really("http://web.shop/")[0] == 503


@pytest.mark.parametrize("fallback", ["", ', fallback: {service: "shop/next", port: 80}'])
def test_an_open_circuit_is_told_with_and_without_a_fallback(explained: Explained, fallback: str) -> None:
    explained.apply(BREAKER % fallback)
    explained.mesh.wait(lambda: "CircuitBreaker shop/breaker" in objects(explained.of("shop/web")))
    assert explained.of("shop/web")["verdict"] == "allowed"
    assert explained.really("http://web.shop/status/500")[0] == 500
    found = explained.of("shop/web")
    if fallback:
        assert (found["verdict"], ends(found)) == ("allowed", ["shop/next"])
        assert explained.really("http://web.shop/") == (200, "next")
    else:
        assert (found["verdict"], found["deciding"]["object"]) == ("refused", "CircuitBreaker shop/breaker")
        assert found["deciding"]["status"] == explained.really("http://web.shop/")[0] == 503


def test_a_service_without_endpoints_is_refused_from_both_kinds_of_callers(explained: Explained) -> None:
    found = explained.of("shop/empty")
    assert found["deciding"]["step"] == "endpoints"
    assert found["deciding"]["status"] == explained.really("http://empty.shop/")[0] == 503
    outside = explained.of("shop/empty", origin="default/outsider")
    assert (outside["verdict"], outside["deciding"]["status"]) == ("refused", None)


def test_a_headless_service_is_a_pod_that_is_dialled(explained: Explained) -> None:
    """Another Service takes its port for gRPC, which is HTTP as well."""
    found = explained.of("shop/heads")
    assert (found["verdict"], ends(found)) == ("allowed", ["shop/web"])
    assert found["destination"]["address"].endswith(":8080")
    assert explained.really("http://heads.shop:8080/") == (200, "web")


def test_tcp_is_explained(explained: Explained) -> None:
    def greeted() -> str:
        try:
            return explained.mesh.ok(
                "exec", "client", "-n", "shop", "-c", "client", "--", "python3", "-c", GREETED
            ).strip()
        except AssertionError:
            return "closed"  # with a reset

    assert explained.of("shop/clock")["request"] is None
    assert greeted() == "hello"
    explained.apply(ROUTES + target("clock", "next", "{kind: TCPRoute, name: any}"))
    denied = explained.until("refused", "", "shop/clock")
    assert (denied["deciding"]["step"], denied["deciding"]["status"]) == ("access", None)
    assert greeted() == "closed"
    explained.apply(target("clock", "client", "{kind: TCPRoute, name: any}"))
    allowed = explained.until("allowed", "", "shop/clock")
    assert "TrafficTarget shop/to-clock" in objects(allowed)
    assert greeted() == "hello"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--from", "shop/nobody", "--to", "shop/web"], 1, "error: from: no pod of workload shop/nobody is running"),
        (["--from", "shop/client", "--to", "shop/nothing"], 1, "error: to: there is no Service shop/nothing"),
        (["--from", "shop/client", "--to", "shop/web:81"], 1, "has no TCP port 81: it has 80 (http)"),
        (["--from", "shop/client", "--to", "shop/web", "--path", "x"], 1, 'error: path: "x" is not a path'),
        (["--from", "shop/client", "--to", "shop/web", "--header", "x"], 2, '"x" is not NAME: VALUE'),
        (["--from", "shop/client", "--to", "shop/web", "--header", "x: \r\n y"], 1, "line breaks"),
        (["--from", "shop/client"], 2, "Missing option '--to'"),
    ],
)
def test_what_cannot_be_explained_says_why(explained: Explained, arguments: list[str], code: int, says: str) -> None:
    done = explained.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_names_may_leave_out_the_namespace_and_say_the_kind(explained: Explained) -> None:
    done = explained.run("--from", "client", "--to", "web", "-n", "shop")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "allowed")
    assert (
        "from Deployment shop/next to Service shop/web"
        in explained.run("--from", "shop/deploy/next", "--to", "shop/svc/web").stdout
    )


def socket_of(explained: Explained, app: str) -> tuple[str, Path]:
    """A pod, and where its sidecar is asked."""
    pods = json.loads(explained.mesh.ok("get", "pods", "-n", "shop", "-o", "json"))["items"]
    pod = next(pod["metadata"] for pod in pods if pod["metadata"]["labels"].get("app") == app)
    return pod["name"], explained.mesh.paths.pod_socket_dir(pod["uid"]) / "explain.sock"


def test_nobody_but_the_agent_can_ask_a_sidecar(explained: Explained) -> None:
    """Not even the pod's own application: what is in force at others is nothing for it to find out."""
    pod, path = socket_of(explained, "web")
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o077 == 0
    for place in (path, "/run/nginx-mesh/explain.sock"):
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(place)!r})"
        tried = explained.mesh.run("exec", pod, "-n", "shop", "-c", "web", "--", "python3", "-c", code)
        assert tried.returncode != 0
        assert re.search("FileNotFoundError|PermissionError", tried.stderr)


def test_a_sidecar_that_does_not_answer_is_said_to_be_unknown(explained: Explained) -> None:
    _, path = socket_of(explained, "web")
    aside = path.with_suffix(".aside")
    path.rename(aside)
    try:
        found = explained.of("shop/web")
        assert found["verdict"] == "unknown"
        assert "does not answer" in found["summary"]
    finally:
        aside.rename(path)
    assert explained.of("shop/web")["verdict"] == "allowed"
