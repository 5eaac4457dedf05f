"""Who may call what: TrafficTargets as sidecars enforce them, and ways around them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pytest

from nginx_mesh.api.spiffe import workload_id
from nginx_mesh.protocol.state import Grant, Inbound, PathRule, Update
from tests.eventually import wait_until

from .world import JSON, PEERS, TRUST_DOMAIN, Authority, Pod, Service, World, cpu

pytestmark = pytest.mark.mesh

HTTP, TCP, GRPC = 8080, 2525, 50051
SOMEBODY = str(workload_id(TRUST_DOMAIN, "test", "somebody"))


@dataclass
class Mesh:
    """A server with all protocols, a client, a client outside of the mesh; `raw` is `web` as a Service of TCP."""

    world: World
    server: Pod
    client: Pod
    outsider: Pod
    web: Service
    grpc: Service
    raw: Service

    @property
    def url(self) -> str:
        return f"http://{self.web.vip}"

    def grant(self, *grants: Grant, port: int = HTTP) -> None:
        """What is allowed at a port from now on."""
        protocol = self.server.ports[port]
        self.server.inbound[port] = Inbound(protocols=[protocol], grants=list(grants))
        self.world.push([self.server])

    def granted(self, *rules: PathRule, port: int = HTTP) -> None:
        """The client is allowed what these rules match."""
        self.grant(Grant(target="test/t", sources=[str(self.client.spiffe_id)], matches=list(rules)), port=port)

    def status(self, path: str = "/echo", *headers: str, **options: str) -> int:
        """The status that a request of the client gets."""
        return int(self.client.get(self.url + path, *headers, **options)["status"])

    def logged(self, what: str) -> JSON:
        """The line of the server's access log that has `what` in it; lines are written within a second."""

        def lines() -> list[str]:
            return [line for line in self.server.log.splitlines() if line.startswith("{") and what in line]

        wait_until(lambda: lines() != [], f"{what} in the access log")
        line: JSON = json.loads(lines()[-1])
        return line


@pytest.fixture(scope="module")
def world_of_mesh() -> Iterator[Mesh]:
    with World() as world:
        server = world.pod("server", {HTTP: "http", TCP: "tcp", GRPC: "grpc"})
        client = world.pod("client")
        outsider = world.pod("outsider", meshed=False)
        web = world.service("web", {80: (HTTP, "http"), 2525: (TCP, "tcp")}, [server])
        grpc = world.service("grpc", {50051: (GRPC, "grpc")}, [server])
        raw = world.service("raw", {81: (HTTP, "tcp")}, [server])
        server.serve("http_server", "--port", str(HTTP))
        server.serve("tcp_server", "--mode", "greeting", "--port", str(TCP))
        server.serve("grpc_server", "--port", str(GRPC))
        yield Mesh(world, server, client, outsider, web, grpc, raw)


@pytest.fixture
def mesh(world_of_mesh: Mesh) -> Mesh:
    world_of_mesh.server.inbound, world_of_mesh.server.identity = {}, None
    world_of_mesh.world.mode = "permissive"
    world_of_mesh.world.push()
    return world_of_mesh


# the deciding TrafficTarget


def test_the_access_log_names_the_traffic_target_that_allowed_a_request(mesh: Mesh) -> None:
    source = [str(mesh.client.spiffe_id)]
    first = Grant(target="test/reads", sources=source, matches=[PathRule(methods=["GET"])])
    second = Grant(target="test/all", sources=source)
    mesh.grant(first, second)
    for method, policy in (("GET", "test/reads"), ("PUT", "test/all")):
        assert mesh.status(f"/echo?by={method}", method=method) == 200
        assert mesh.logged(f"by={method}")["policy"] == policy
    mesh.grant(first)
    assert mesh.status("/echo?by=nobody", method="PUT") == 403
    assert mesh.logged("by=nobody")["policy"] == ""


def test_of_many_traffic_targets_the_oldest_that_names_the_caller_and_allows_the_request_decides(mesh: Mesh) -> None:
    client = str(mesh.client.spiffe_id)
    others = [client.replace("/sa/", f"/sa/{number}-") for number in range(300)]
    path = [PathRule(path_regex="^/other")]
    grants = [Grant(target=f"test/{number}", sources=[others[number % 300]]) for number in range(1000)]
    grants[10] = Grant(target="test/10", sources=[*others[:5], client], matches=path)
    grants[500] = Grant(target="test/500", sources=[client, *others[5:9]])
    grants[900] = Grant(target="test/900", sources=[client])
    for left, by in ((grants, "500"), (grants[:10] + grants[501:], "900")):
        mesh.grant(*left)
        assert mesh.status(f"/echo?at={by}") == 200
        assert mesh.logged(f"at={by}")["policy"] == f"test/{by}"
    mesh.grant(*grants[:500], *grants[501:900], *grants[901:])
    assert mesh.status() == 403


def test_the_access_log_names_the_traffic_target_that_allowed_a_connection(mesh: Mesh) -> None:
    mesh.granted(port=TCP)
    assert "error" not in mesh.client.call("tcp_client", "greeting", mesh.web.vip, "2525")
    assert mesh.logged('"protocol":"tcp"')["policy"] == "test/t"


# a port that is HTTP to one Service and TCP to another


def test_at_a_port_of_both_protocols_requests_and_connections_are_granted_apart(mesh: Mesh) -> None:
    source = [str(mesh.client.spiffe_id)]
    reads = Grant(target="test/reads", sources=source, matches=[PathRule(methods=["GET"])])
    connections = Grant(target="test/connections", sources=source, tcp=True)

    def allowed(*grants: Grant) -> tuple[int, int, bool]:
        """The statuses of a GET and a PUT, and whether a connection has an answer."""
        mesh.server.inbound[HTTP] = Inbound(protocols=["http", "tcp"], grants=list(grants))
        mesh.world.push([mesh.server])
        carried = mesh.client.get(f"http://{mesh.raw.vip}:81/echo", method="PUT")
        return mesh.status(), mesh.status(method="PUT"), carried.get("status") == 200

    assert allowed(reads) == (200, 403, False)
    assert allowed(connections) == (403, 403, True)
    assert allowed(reads, connections) == (200, 403, True)
    assert allowed(Grant(target="test/all", sources=source)) == (200, 200, True)
    assert allowed() == (403, 403, False)


# refusals, and when they are decided


def test_grpc_is_refused_in_the_grpc_way(mesh: Mesh) -> None:
    """Trailers-Only: HTTP 200, one frame of headers that ends the stream, and the status in it."""
    mesh.grant(Grant(target="test/t", sources=[SOMEBODY]), port=GRPC)
    url = f"http://{mesh.grpc.vip}:50051/test.Peer/Unary"
    answer = mesh.client.call("h2_client", url, "--size", "10", "--header", "content-type: application/grpc+proto")
    refusal = answer["answers"][0]
    assert (refusal["status"], refusal["trailers_only"]) == (200, True)
    assert refusal["headers"]["grpc-status"] == "7"
    assert refusal["headers"]["grpc-message"] == "access denied"
    assert mesh.client.call("grpc_client", "unary", f"{mesh.grpc.vip}:50051")["code"] == "PERMISSION_DENIED"
    mesh.granted(PathRule(path_regex=r"^/test\.Peer/Unary$", methods=["POST"]), port=GRPC)
    assert mesh.client.call("grpc_client", "unary", f"{mesh.grpc.vip}:50051")["intact"]
    assert mesh.client.call("grpc_client", "fail", f"{mesh.grpc.vip}:50051")["code"] == "PERMISSION_DENIED"


def test_who_proves_nothing_is_denied_where_any_traffic_target_applies(mesh: Mesh) -> None:
    url, host = f"http://{mesh.server.address}:{HTTP}/echo", mesh.server.address
    assert mesh.outsider.get(url)["status"] == 200
    mesh.granted(PathRule(), port=HTTP)
    mesh.granted(port=TCP)
    assert mesh.outsider.get(url)["status"] == 403
    assert "error" in mesh.outsider.call("tcp_client", "greeting", host, str(TCP), "--timeout", "5")
    assert mesh.status() == 200


def test_a_websocket_is_a_request_like_others(mesh: Mesh) -> None:
    mesh.granted(PathRule(path_regex="^/ws$", headers={"upgrade": "^websocket$"}))
    assert mesh.client.call("http_client", "websocket", f"ws://{mesh.web.vip}/ws")["echoed"] == 3
    mesh.granted(PathRule(path_regex="^/echo$"))
    assert "403" in mesh.client.call("http_client", "websocket", f"ws://{mesh.web.vip}/ws")["error"]


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_each_request_of_a_connection_is_judged_by_itself(mesh: Mesh, version: str) -> None:
    """The caller's connection, and that between the sidecars, are kept while the right comes and goes."""
    argv = mesh.client.command(sys.executable, str(PEERS / "keeper.py"), mesh.web.vip, version)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        seen = []
        for sources in ([str(mesh.client.spiffe_id)], [SOMEBODY]) * 2:
            mesh.grant(Grant(target="test/t", sources=sources))
            keeper.stdin.write("/echo\n")
            seen.append(int(keeper.stdout.readline()))
    assert seen == [200, 403, 200, 403]


@pytest.mark.parametrize(
    ("rule", "path", "headers"),
    [
        (PathRule(path_regex="^/(a+)+$"), "/" + "a" * 4000 + "!", []),
        (PathRule(path_regex="(?:a|b)*?(?:a|b)*?c$"), "/" + ("ab" * 60 + "-") * 60 + "cd", []),
        (PathRule(headers={"x-long": "^(([a-z])+.)+[A-Z]([a-z])+$"}), "/", ["X-Long: " + "a" * 8000]),
        (PathRule(headers={"x-long": "(.*)(.*)(.*)x$"}), "/", ["X-Long: " + "a" * 8000]),
    ],
    ids=["nested", "from every place", "header", "three of anything"],
)
def test_no_expression_takes_long_whatever_is_sent(mesh: Mesh, rule: PathRule, path: str, headers: list[str]) -> None:
    """Five rules, and a caller that knows what hurts: it is denied, and the others wait for less than a second."""
    grants = [Grant(target=f"test/{i}", sources=[str(mesh.client.spiffe_id)], matches=[rule]) for i in range(5)]
    mesh.grant(*grants)
    before = cpu(mesh.server)
    check(mesh, [(get(path, *headers), [403])])
    assert cpu(mesh.server) - before < 1


# TCP connections that are open


@dataclass
class Open:
    """A connection of a pod to the TCP server, which has greeted."""

    process: subprocess.Popen[str]

    @property
    def still(self) -> bool:
        return self.process.poll() is None

    def ended(self, seconds: float = 3) -> bool:
        """Whether it ends in time; a loaded machine is slow."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return not self.still


def hold(mesh: Mesh, pod: Pod, host: str) -> Open:
    """Open a connection that the client says nothing on for a minute, but would notice the end of."""
    process = pod.start("tcp_client", "wait", host, str(TCP), "--timeout", "60")
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    return Open(process)


def test_an_open_connection_is_closed_when_its_right_is_withdrawn(mesh: Mesh) -> None:
    mesh.granted(port=TCP)
    one = hold(mesh, mesh.client, mesh.web.vip)
    mesh.grant(Grant(target="test/other", sources=[str(mesh.client.spiffe_id)]), port=TCP)
    mesh.granted(port=HTTP)
    assert not one.ended(0.5), "it is still allowed"
    mesh.grant(Grant(target="test/other", sources=[SOMEBODY]), port=TCP)
    assert one.ended()
    assert "is closed: access denied" in mesh.server.log
    mesh.granted(port=TCP)
    assert "error" not in mesh.client.call("tcp_client", "greeting", mesh.web.vip, str(TCP))


def test_an_open_plaintext_connection_is_closed_when_a_traffic_target_comes(mesh: Mesh) -> None:
    theirs = hold(mesh, mesh.outsider, mesh.server.address)
    ours = hold(mesh, mesh.client, mesh.web.vip)
    mesh.granted(port=TCP)
    assert theirs.ended()
    assert not ours.ended(0.5)


def test_an_open_plaintext_connection_is_closed_when_the_mode_becomes_strict(mesh: Mesh) -> None:
    theirs = hold(mesh, mesh.outsider, mesh.server.address)
    ours = hold(mesh, mesh.client, mesh.web.vip)
    mesh.world.mode = "strict"
    mesh.world.push()
    assert theirs.ended()
    assert not ours.ended(0.5)


def test_an_open_connection_is_closed_when_its_port_is_declared_no_more(mesh: Mesh) -> None:
    one = hold(mesh, mesh.client, mesh.web.vip)
    update = Update(base=mesh.server.version, version=mesh.world.next_version(), delete=[f"inbound/{TCP}"])
    assert mesh.server.update(update)[0] == 200
    assert one.ended()


def test_an_open_connection_is_closed_when_its_trust_domain_is_believed_no_more(mesh: Mesh) -> None:
    one = hold(mesh, mesh.client, mesh.web.vip)
    other = Authority("elsewhere.test")
    mesh.server.identity = other.identity(workload_id("elsewhere.test", "test", "server"))
    mesh.world.push([mesh.server])
    assert one.ended()


# ways around: requests that a caller with a good certificate sends without its own sidecar


def get(path: str, *headers: str, method: str = "GET", version: str = "HTTP/1.1") -> str:
    """A request on a connection that ends with it."""
    return "\r\n".join((f"{method} {path} {version}", "Host: server", *headers, "Connection: close", "", ""))


def h2(path: str, *fields: tuple[str, str], method: str = "GET") -> list[tuple[str, str]]:
    """The fields of an HTTP/2 request."""
    return [(":method", method), (":scheme", "https"), (":path", path), (":authority", "server"), *fields]


def intrude(mesh: Mesh, requests: Sequence[str | list[tuple[str, str]]]) -> list[list[int]]:
    """The statuses that each gets; 404 is the application's, which has nothing there."""
    identity = mesh.world.authority.identity(mesh.client.spiffe_id)
    cert, file = mesh.world.directory / "intruder.pem", mesh.world.directory / "intruder.json"
    cert.write_text(identity.svid + identity.key)
    file.write_text(json.dumps(requests))
    answer = mesh.outsider.call("intruder", mesh.server.address, str(HTTP), str(cert), str(file))
    answers: list[list[int]] = answer["answers"]
    return answers


def check(mesh: Mesh, expected: Sequence[tuple[str | list[tuple[str, str]], list[int]]]) -> None:
    """Send all requests, and compare each answer."""
    got = intrude(mesh, [request for request, _ in expected])
    wrong = [(request, have, want) for (request, want), have in zip(expected, got, strict=True) if have != want]
    assert not wrong


def test_no_spelling_of_a_path_gets_around_a_rule_that_excludes_it(mesh: Mesh) -> None:
    """The rule is the hardest to keep: all but one. The application answers 200 at /status/200, 404 elsewhere."""
    mesh.granted(PathRule(path_regex="^/(?!status/)"))
    denied = [
        "/status/200",
        "/%73tatus/200",
        "/%2573tatus/200",
        "//status/200",
        "///status//200",
        "/status;v=1/200",
        "/;/status/200",
        "/;a=b/;c//status/200",
        "/x/../status/200",
        "/x/%2e%2e/status/200",
        "/x/.%2E/status/200",
        "/x/..;/status/200",
        "/x/..;a=1/status/200",
        "/./status/200",
        "/%2fstatus/200",
        "/x%2f..%2fstatus/200",
        "/x%5c..%5cstatus/200",
        "/x\\..\\status\\200",
        "/x%3b/../status/200",
        "/x#/../status/200",
        "/status%00/200",
        "/%c0%afstatus/200",
        "/%0astatus/200",
        "http://server/status/200",
        "http://elsewhere//status/200",
        "http://server/x/../status/200",
    ]
    refused = {"/status%00/200": 400}
    check(mesh, [(get(path), [refused.get(path, 403)]) for path in denied])
    over_h2 = [path for path in denied if path.startswith("/")]
    check(mesh, [(h2(path), [refused.get(path, 403)]) for path in over_h2])
    allowed = ["/x", "/x//y", "/x;y=status/200", "/statuses", "/?/status/200", "/x?a=../%2f;#\\", "/100%25"]
    check(mesh, [(request(path), [404]) for path in allowed for request in (get, h2)])


def test_what_is_not_a_request_for_a_path_reaches_no_application(mesh: Mesh) -> None:
    mesh.granted(PathRule(path_regex="^/echo$", methods=["GET"]))
    two = get("/echo").replace("Connection: close\r\n", "") + get("/status/200")
    check(
        mesh,
        [
            (get("/echo"), [200]),
            (h2("/echo"), [200]),
            (two, [200, 403]),
            (get("status/200"), [400]),
            (get("*", method="OPTIONS"), [400]),
            (get("server:8080", method="CONNECT"), [400]),
            (get("/echo", method="CONNECT"), [405]),
            (get("/echo", method="get"), [400]),
            (get("/echo", method="GETS"), [403]),
            (get("/echo", "Host: other"), [400]),
            (get("/echo", "Content-Length: 4", "Transfer-Encoding: chunked"), [400]),
            (get("/echo", "Content-Length: 4", "Content-Length: 5"), [400]),
            ("GET /status/200\r\n", [9]),
            (get("/status/200", "Upgrade: websocket"), [403]),
            (get("/echo", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), [200]),
            (h2("status/200"), [400]),
            (h2("*"), [400]),
            (h2(""), [400]),
            (h2("https://server/status/200"), [400]),
            (h2("/echo", method="CONNECT"), [405]),
            (h2("/echo", method="get"), [400]),
            (h2("/echo", (":path", "/status/200")), [400]),
            (h2("/echo", ("host", "other")), [400]),
            (h2("/echo", ("X-Upper", "1")), [400]),
            ([("x-first", "1"), *h2("/status/200")], [403]),
        ],
    )


def test_a_header_counts_by_every_value_that_an_application_may_take(mesh: Mesh) -> None:
    mesh.granted(PathRule(path_regex="^/echo$", headers={"x-team": "blue"}))
    check(
        mesh,
        [
            (get("/echo"), [403]),
            (get("/echo", "x-TEAM: blue"), [200]),
            (get("/echo", "X-Team: light blue"), [200]),
            (get("/echo", "X-Team: blue", "X-Team: blue"), [200]),
            (get("/echo", "X-Team: blue", "X-Team: red"), [403]),
            (get("/echo", "X-Team: red", "X-Team: blue"), [403]),
            (get("/echo", "X_Team: blue"), [403]),
            (get("/echo", "X-Team: blue", "X_Team: red"), [403]),
            (get("/echo", "X-Team : blue"), [400]),
            (get("/echo", f"X-Team: blue{'-' * 9000}"), [403]),
            (get("/echo", f"X-Team: blue{'-' * 40000}"), [400]),
            (get("/echo", *["X-Team: blue"] * 64), [200]),
            (get("/echo", *["X-Team: blue"] * 65), [403]),
            (get("/echo", "Connection: X-Team", "X-Team: red"), [403]),
            (h2("/echo", ("x-team", "blue")), [200]),
            (h2("/echo", ("x-team", "blue"), ("x-team", "red")), [403]),
        ],
    )
    mesh.granted(PathRule(headers={"x-team": "^blue$"}))
    check(mesh, [(get("/echo", "X-Team: blue"), [200]), (get("/echo", "X-Team: blue", "X-Team: blue"), [403])])


def test_the_host_that_a_rule_is_about_is_the_one_that_the_application_gets(mesh: Mesh) -> None:
    mesh.granted(PathRule(headers={"host": "^server$"}))
    check(
        mesh,
        [
            (get("/echo"), [200]),
            (get("http://other/echo"), [200]),
            (get("/echo").replace("Host: server", "Host: other"), [403]),
            (get("http://server/echo").replace("Host: server", "Host: other"), [403]),
            (h2("/echo"), [200]),
            ([(name, "other" if name == ":authority" else value) for name, value in h2("/echo")], [403]),
        ],
    )
