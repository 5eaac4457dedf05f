"""What sidecars say would become of a request is what becomes of it, and saying so changes nothing."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

from nginx_mesh.api.portprotocol import PortProtocol
from nginx_mesh.node.explain import ask_incoming, ask_outgoing
from nginx_mesh.protocol.explain import Incoming, NotUnderstoodError, Outgoing, Question, Request, encode
from nginx_mesh.protocol.state import (
    Breaker,
    Cluster,
    Destination,
    Grant,
    Inbound,
    Limit,
    PathRule,
    Split,
    SplitBackend,
)
from tests.eventually import wait_until

from .test_balancing import cut_off, reconnect
from .world import JSON, Pod, Service, World

pytestmark = pytest.mark.mesh

HTTP, TCP, GRPC = 8080, 2525, 50051
PLAIN = Request("GET", "/echo", (("Host", "web"),))
PORTS: dict[int, PortProtocol] = {HTTP: "http", TCP: "tcp", GRPC: "grpc"}

# Sends requests as they are, each on a connection of its own, and prints the statuses.
SENDER = """
import socket, sys
for request in sys.stdin.read().split("\\0"):
    with socket.create_connection((sys.argv[1], 80), 10) as peer:
        peer.sendall(request.encode("latin-1"))
        print(peer.makefile("rb").readline().split()[1].decode())
"""


@dataclass
class Mesh:
    """A client; a server of all protocols, another for splits and fallbacks; a caller without a sidecar."""

    world: World
    client: Pod
    server: Pod
    other: Pod
    outsider: Pod
    web: Service
    second: Service
    empty: Service

    def put(self, *, grants: list[Grant] | None = None, limits: list[Limit] | None = None, port: int = HTTP) -> None:
        """What the server has at a port from now on."""
        self.server.inbound[port] = Inbound(protocols=[PORTS[port]], grants=grants, limits=limits or [])
        self.world.push()

    def outgoing(self, request: Request | None = None, port: int = 80) -> Outgoing:
        """What the client's sidecar says of a request to the service."""
        question = Question(
            direction="outbound",
            ip=self.web.vip,
            port=port,
            source=self.client.address,
            request=(request or PLAIN).with_host("web"),
        )
        return asyncio.run(ask_outgoing(self.client.socket_dir / "explain.sock", question))

    def incoming(
        self, request: Request | None = None, *, caller: Pod | None = None, peer: str | None = "", port: int = HTTP
    ) -> Incoming:
        """What the server's sidecar says; `peer` "" is the client's own identity, None plaintext."""
        question = Question(
            direction="inbound",
            ip=self.server.address,
            port=port,
            source=(caller or self.client).address,
            carried="tcp" if PORTS[port] == "tcp" else "http",
            peer=str(self.client.spiffe_id) if peer == "" else peer,
            request=(request or PLAIN).with_host("web").forwarded(),
        )
        return asyncio.run(ask_incoming(self.server.socket_dir / "explain.sock", question))

    def statuses(self, *requests: Request) -> list[int]:
        """What requests of the client really get, one after the other."""
        heads = (
            "\r\n".join(
                (
                    f"{request.method} {request.path} HTTP/1.1",
                    *(f"{name}: {value}" for name, value in request.with_host("web").headers),
                    "Connection: close",
                    *("", ""),
                )
            )
            for request in requests
        )
        argv = self.client.command(sys.executable, "-c", SENDER, self.web.vip)
        done = subprocess.run(argv, input="\0".join(heads), capture_output=True, text=True, check=True, timeout=60)
        return [int(status) for status in done.stdout.split()]

    def status(self, request: Request) -> int:
        """The same of one."""
        return self.statuses(request)[0]


def said(answer: Incoming) -> int:
    """The status of a refusal, 200 without one."""
    refusals = [check.refusal for check in answer.checks if check.refusal is not None]
    if answer.limited is not None and answer.limited.refusal is not None:
        refusals.append(answer.limited.refusal)
    return refusals[0].status or 0 if refusals else 200


@pytest.fixture(scope="module")
def shared() -> Iterator[Mesh]:
    with World() as world:
        server, other = world.pod("server", PORTS), world.pod("other", PORTS)
        client, outsider = world.pod("client"), world.pod("outsider", meshed=False)
        ports = {80: (HTTP, PORTS[HTTP]), 2525: (TCP, PORTS[TCP]), 50051: (GRPC, PORTS[GRPC])}
        web, second = world.service("web", ports, [server]), world.service("second", ports, [other])
        empty = world.service("empty", {80: (HTTP, "http")}, [])
        world.push()
        for pod in (server, other):
            pod.serve("http_server", "--port", str(HTTP))
        server.serve("tcp_server", "--mode", "greeting", "--port", str(TCP))
        server.serve("grpc_server", "--port", str(GRPC))
        yield Mesh(world, client, server, other, outsider, web, second, empty)


@pytest.fixture
def mesh(shared: Mesh) -> Iterator[Mesh]:
    yield shared
    shared.server.inbound.clear()
    shared.world.policies.clear()
    shared.world.mode = "permissive"
    shared.web.pods[:] = [shared.server]
    shared.world.push()


# the called side


REQUESTS = [
    Request("GET", "/echo"),
    Request("HEAD", "/echo"),
    Request("POST", "/echo"),
    Request("GET", "/echo?path=/status/200"),
    Request("GET", "//echo"),
    Request("GET", "/echo;a=b"),
    Request("GET", "/ech%6f"),
    Request("GET", "/echo%2fx"),
    Request("GET", "/status/../echo"),
    Request("GET", "/ECHO"),
    Request("GET", "/echo", (("X-Key", "a"),)),
    Request("GET", "/echo", (("x_key", "a"),)),
    Request("GET", "/echo", (("X-Key", "a"), ("x-key", "b"))),
    Request("GET", "/echo", (("If-Match", '"x"'), ("If-None-Match", "*"), ("Range", "bytes=0-1"))),
    Request("DELETE", "/echo", (("X-Key", "a"), ("Accept-Encoding", "gzip"))),
]
RULES = {
    "path": PathRule(path_regex="^/echo$"),
    "method": PathRule(methods=["GET", "DELETE"]),
    "header": PathRule(headers={"x-key": "^a$"}),
    "all": PathRule(path_regex="^/echo", methods=["DELETE"], headers={"x-key": "a"}),
}


@pytest.mark.parametrize("rule", RULES)
def test_access_is_explained_as_it_is_decided(mesh: Mesh, rule: str) -> None:
    mesh.put(grants=[Grant(target="test/t", sources=[str(mesh.client.spiffe_id)], matches=[RULES[rule]])])
    for request, really in zip(REQUESTS, mesh.statuses(*REQUESTS), strict=True):
        answer = mesh.incoming(request)
        assert said(answer) == (403 if really == 403 else 200), (request, really, answer)
        assert answer.granted == (None if really == 403 else "test/t"), request


def test_a_request_that_nginx_refuses_itself_is_told_from_one_that_the_mesh_refuses(mesh: Mesh) -> None:
    for request in (Request("TRACE", "/echo"), Request("GET", "/../../echo")):
        with pytest.raises(NotUnderstoodError) as refused:
            mesh.outgoing(request)
        assert refused.value.status == mesh.status(request), request


def test_targets_that_do_not_grant_it_say_why(mesh: Mesh) -> None:
    mesh.put(
        grants=[
            Grant(target="test/others", sources=["spiffe://example.org/ns/test/sa/x"]),
            Grant(target="test/reads", sources=[str(mesh.client.spiffe_id)], matches=[RULES["method"]]),
        ]
    )
    answer = mesh.incoming(Request("POST", "/echo"))
    assert said(answer) == 403
    assert [(target.target, target.names_caller) for target in answer.targets] == [
        ("test/others", False),
        ("test/reads", True),
    ]


def test_whom_the_caller_proves_decides_and_not_its_headers(mesh: Mesh) -> None:
    mesh.put(grants=[Grant(target="test/t", sources=[str(mesh.client.spiffe_id)])])
    claimed = Request(headers=(("X-Forwarded-Client-Spiffe-Id", str(mesh.client.spiffe_id)),))
    assert said(mesh.incoming(claimed, peer=None)) == 403
    assert mesh.outsider.get(f"http://{mesh.server.address}:{HTTP}/echo")["status"] == 403
    nobody = mesh.incoming(peer="spiffe://elsewhere.test/ns/test/sa/client")
    assert [check.check for check in nobody.checks if check.refusal] == ["identity"]
    mesh.world.mode = "strict"
    mesh.world.push()
    plain = mesh.incoming(claimed, peer=None)
    assert (said(plain), plain.checks[-1].check) == (400, "mode")
    assert mesh.outsider.get(f"http://{mesh.server.address}:{HTTP}/echo")["status"] == 400
    assert said(mesh.incoming()) == mesh.status(PLAIN) == 200


def test_tcp_is_explained_as_it_is_decided(mesh: Mesh) -> None:
    def greets(pod: Pod, host: str) -> bool:
        return "error" not in pod.call("tcp_client", "greeting", host, str(TCP), "--timeout", "5")

    assert mesh.incoming(port=TCP).closed is None
    for source, allowed in ((str(mesh.client.spiffe_id), True), ("spiffe://example.org/ns/test/sa/x", False)):
        mesh.put(grants=[Grant(target="test/t", sources=[source])], port=TCP)
        answer = mesh.incoming(port=TCP)
        assert (answer.closed, answer.granted) == ((None, "test/t") if allowed else ("access denied", None))
        assert greets(mesh.client, mesh.web.vip) == allowed
        assert mesh.incoming(port=TCP, caller=mesh.outsider, peer=None).closed == "access denied"
        assert not greets(mesh.outsider, mesh.server.address)


def test_a_port_that_no_container_declares_is_closed(mesh: Mesh) -> None:
    question = Question(
        direction="inbound", ip=mesh.server.address, port=9999, source=mesh.client.address, request=PLAIN
    )
    answer = asyncio.run(ask_incoming(mesh.server.socket_dir / "explain.sock", question))
    assert answer.closed == "no container declares this port"


def test_a_port_of_another_protocol_is_told_as_connections_are_sorted(mesh: Mesh) -> None:
    def asked(carried: Literal["http", "tcp"], port: int, peer: str | None) -> Incoming:
        question = Question(
            direction="inbound",
            ip=mesh.server.address,
            port=port,
            source=mesh.client.address,
            carried=carried,
            peer=peer,
            request=PLAIN,
        )
        return asyncio.run(ask_incoming(mesh.server.socket_dir / "explain.sock", question))

    own = str(mesh.client.spiffe_id)
    assert "the port speaks HTTP" in (asked("tcp", HTTP, own).closed or "")
    assert "the port speaks TCP" in (asked("http", TCP, own).closed or "")
    assert asked("http", TCP, None).closed is None
    mesh.world.mode = "strict"
    mesh.world.push()
    assert asked("http", TCP, own).closed is None
    assert asked("http", TCP, None).closed == "the caller speaks plaintext and mTLS is strict"


def test_limits_are_told_with_what_is_left_of_them_and_the_right_one_for_the_caller(mesh: Mesh) -> None:
    """What a burst lets pass is all that passes: the rate is one request in 1000 s."""
    own = Limit(
        name="test/own/Pod/test/client",
        rate=1,
        burst=1,
        delay=-1,
        sources=[str(mesh.client.spiffe_id)],
        addresses=[mesh.client.address],
    )
    others = Limit(name="test/others", rate=1, delay=-1)
    mesh.put(limits=[own, others])
    seen = []
    for _ in range(3):
        answer = mesh.incoming()
        (limit,) = answer.limits
        seen.append((limit.ratelimit, round(limit.excess, -2), said(answer), mesh.status(PLAIN)))
    assert seen == [("test/own", 0, 200, 200), ("test/own", 1000, 200, 200), ("test/own", 2000, 503, 503)]
    (limit,) = mesh.incoming(caller=mesh.outsider, peer=None).limits
    assert (limit.ratelimit, limit.admits, limit.delay) == ("test/others", True, -1)


def test_a_delay_is_told_before_it_is_waited_for(mesh: Mesh) -> None:
    mesh.put(limits=[Limit(name="test/slow", rate=2000, burst=9)])
    assert mesh.incoming().limited is None
    mesh.status(PLAIN)
    answer = mesh.incoming()
    assert answer.limited is not None
    assert 0 < answer.limited.wait <= 500


def test_a_body_that_is_announced_too_long_is_refused(mesh: Mesh) -> None:
    mesh.server.body_size = 10
    mesh.world.push()
    try:
        answer = mesh.incoming(Request("POST", "/echo", (("Content-Length", "11"),)))
        assert (said(answer), answer.checks[-1].check) == (413, "body")
        assert said(mesh.incoming(Request("POST", "/echo", (("Content-Length", "10"),)))) == 200
    finally:
        mesh.server.body_size = 0


# the calling side


def key(service: Service) -> str:
    return f"test/{service.name}:80"


def test_a_split_is_told_with_its_shares_and_forced_by_a_match(mesh: Mesh) -> None:
    backends = [SplitBackend(cluster=key(mesh.web), weight=0), SplitBackend(cluster=key(mesh.second), weight=5)]
    mesh.world.policies[f"split/{key(mesh.web)}"] = Split(
        split="test/canary", backends=backends, matches=[PathRule(headers={"x-test": "yes"})]
    )
    mesh.world.push()
    plain, tester = mesh.outgoing(Request("GET", "/echo")), mesh.outgoing(Request("GET", "/echo", (("X-Test", "yes"),)))
    assert [branch.cluster for branch in plain.branches] == [key(mesh.web)]
    assert plain.branches[0].branches == 0
    assert [(branch.cluster, branch.weight, branch.usable) for branch in tester.branches] == [
        (key(mesh.web), 0, False),
        (key(mesh.second), 5, True),
    ]
    for headers, server in (((), "server"), (("X-Test: yes",), "other")):
        answer = mesh.client.get(f"http://{mesh.web.vip}/echo", *headers)
        assert answer["headers"]["x-served-by"] == server


def test_a_split_without_a_usable_backend_stays_with_the_service(mesh: Mesh) -> None:
    backends = [SplitBackend(cluster=key(mesh.empty), weight=1), SplitBackend(cluster=key(mesh.second), weight=0)]
    mesh.world.policies[f"split/{key(mesh.web)}"] = Split(split="test/canary", backends=backends)
    mesh.world.push()
    (branch,) = mesh.outgoing().branches
    assert (branch.cluster, branch.branches, branch.refusal) == (key(mesh.web), 2, None)
    assert mesh.client.get(f"http://{mesh.web.vip}/echo")["headers"]["x-served-by"] == "server"


def test_a_service_without_endpoints_is_refused_in_the_same_words(mesh: Mesh) -> None:
    mesh.web.pods[:] = []
    mesh.world.push()
    (branch,) = mesh.outgoing().branches
    answer = mesh.client.get(f"http://{mesh.web.vip}/echo")
    assert branch.refusal is not None
    assert (answer["status"], answer["body"]) == (branch.refusal.status, f"nginx-mesh: {branch.refusal.reason}\n")
    assert mesh.outgoing(port=2525).branches[0].refusal is not None


def test_what_the_mesh_does_not_know_has_no_destination(mesh: Mesh) -> None:
    question = Question(direction="outbound", ip="192.0.2.1", port=80, source=mesh.client.address, request=PLAIN)
    answer = asyncio.run(ask_outgoing(mesh.client.socket_dir / "explain.sock", question))
    assert (answer.destination, answer.branches, answer.mtls_mode) == (None, [], "permissive")


def test_a_cluster_that_nobody_called_yet_is_explained_as_well(mesh: Mesh) -> None:
    """The sidecar decodes a cluster when it is first needed, with the split, the breaker and the clusters they name."""
    address, name = "10.96.9.9", "test/unseen:80"
    endpoints = {f"{mesh.server.address}:{HTTP}": mesh.server.endpoint("permissive")}
    mesh.world.policies |= {
        f"destination/{address}:80": Destination(protocol="http", cluster=name),
        f"cluster/{name}": Cluster(lb_method="random", endpoints=endpoints),
        f"breaker/{name}": Breaker(breaker="test/cb", errors=1, timeout_ms=1000),
    }
    mesh.world.push()
    question = Question(direction="outbound", ip=address, port=80, source=mesh.client.address, request=PLAIN)
    (branch,) = asyncio.run(ask_outgoing(mesh.client.socket_dir / "explain.sock", question)).branches
    assert (branch.lb_method, [endpoint.address for endpoint in branch.endpoints]) == ("random", list(endpoints))
    assert [(circuit.breaker, circuit.state) for circuit in branch.breakers] == [("test/cb", "closed")]


@pytest.mark.parametrize("fallback", [True, False])
def test_an_open_circuit_is_told_with_who_answers_meanwhile(mesh: Mesh, fallback: bool) -> None:
    mesh.world.policies[f"breaker/{key(mesh.web)}"] = Breaker(
        breaker="test/cb", errors=1, timeout_ms=60_000 + fallback, fallback=key(mesh.second) if fallback else ""
    )
    mesh.world.push()
    assert mesh.outgoing().branches[0].cluster == key(mesh.web)
    assert mesh.status(Request("GET", "/status/500")) == 500
    (branch,) = mesh.outgoing().branches
    (circuit,) = branch.breakers
    assert (circuit.state, 0 < circuit.wait <= 60_001) == ("open", True)
    answer = mesh.client.get(f"http://{mesh.web.vip}/echo")
    if fallback:
        assert (branch.cluster, branch.refusal) == (key(mesh.second), None)
        assert answer["headers"]["x-served-by"] == "other"
    else:
        assert branch.refusal is not None
        assert answer["body"] == f"nginx-mesh: {branch.refusal.reason}\n"


def test_an_endpoint_that_failed_is_told_to_be_passed_over(mesh: Mesh) -> None:
    mesh.web.pods[:] = [mesh.server, mesh.other]
    mesh.world.push()
    cut_off(mesh.other, "reject with tcp reset")
    try:
        wait_until(
            lambda: (
                mesh.status(PLAIN) == 200 and any(endpoint.down for endpoint in mesh.outgoing().branches[0].endpoints)
            ),
            "the failed endpoint is passed over",
        )
        down = [endpoint.address for endpoint in mesh.outgoing().branches[0].endpoints if endpoint.down]
        assert down == [f"{mesh.other.address}:{HTTP}"]
    finally:
        reconnect(mesh.other)


# nothing changes


def traces(pod: Pod) -> tuple[list[str], list[str]]:
    """The pod's metrics of requests, and its access log."""
    exposed = pod.output("curl", "-sS", "http://127.0.0.1:8887/metrics").splitlines()
    counts = [line for line in exposed if re.match(r"nginxplus_(http|upstream|rate|access|circuit|stream)", line)]
    return sorted(counts), [line for line in pod.log.splitlines() if line.startswith("{")]


def test_a_hundred_explanations_charge_no_limit_take_no_trial_count_nothing_and_log_nothing(mesh: Mesh) -> None:
    mesh.world.policies[f"breaker/{key(mesh.web)}"] = Breaker(breaker="test/cb", errors=1, timeout_ms=1500)
    limit = Limit(name="test/once", rate=1, burst=1, delay=-1)
    mesh.put(grants=[], port=TCP)
    mesh.put(limits=[limit], grants=[Grant(target="test/t", sources=[str(mesh.client.spiffe_id)])])
    assert mesh.status(Request("GET", "/status/500")) == 500
    wait_until(lambda: mesh.outgoing().branches[0].breakers[0].state == "half-open", "the circuit is half-open")
    time.sleep(1.2)  # lines of the log and counts are written every second
    before = [traces(pod) for pod in (mesh.client, mesh.server)]
    for _ in range(50):
        (branch,) = mesh.outgoing().branches
        assert (branch.breakers[0].state, branch.breakers[0].wait) == ("half-open", 0)
        (seen,) = mesh.incoming().limits
        assert 900 < seen.excess <= 1000, "it drains by 1 a second, and is not filled"
        assert said(mesh.incoming(peer=None)) == 403
        assert mesh.incoming(port=TCP).closed == "access denied"
    time.sleep(1.2)
    assert [traces(pod) for pod in (mesh.client, mesh.server)] == before
    assert mesh.statuses(PLAIN, PLAIN) == [200, 503], "there is as much left of the burst, and the trial was free"


# hostile questions


def raw(pod: Pod, data: bytes) -> bytes:
    """What the socket answers to bytes, until it is silent or ends the connection."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(2)
        peer.connect(str(pod.socket_dir / "explain.sock"))
        received = b""
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while piece := peer.recv(65536):
                received += piece
        except (TimeoutError, ConnectionError):
            pass
        return received


SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
V4 = socket.inet_aton("10.0.0.1") * 2 + struct.pack("!HH", 1, 80)


def proxy(body: bytes, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def tlv(type_: int, value: bytes) -> bytes:
    return struct.pack("!BH", type_, len(value)) + value


HOSTILE = {
    "no preamble": GET,
    "random bytes": bytes(range(256)) * 30,
    "nothing": b"",
    "cut off": proxy(V4)[:-3],
    "a length that is not there": SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 65535) + GET,
    "a value longer than all": proxy(V4 + struct.pack("!BH", 0xE0, 60000)) + GET,
}
UNCLEAR = {
    "nobody's connection": (proxy(b"", 0x20) + GET, "names no address"),
    "no family": (proxy(b"", family=0x00) + GET, "names no address"),
    "no direction": (proxy(V4) + GET, "the direction"),
    "another direction": (proxy(V4 + tlv(0xE0, b"sideways")) + GET, "the direction"),
    "no protocol": (proxy(V4 + tlv(0xE0, b"inbound")) + GET, "the protocol"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_question_is_no_harm(mesh: Mesh, what: str) -> None:
    answer = raw(mesh.server, HOSTILE[what])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), answer
    assert said(mesh.incoming()) == 200


@pytest.mark.parametrize("what", UNCLEAR)
def test_a_question_that_lacks_something_is_told_what(mesh: Mesh, what: str) -> None:
    question, reason = UNCLEAR[what]
    head, _, body = raw(mesh.server, question).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400"), head
    document: JSON = json.loads(body)
    assert reason in document["error"]


def test_a_sidecar_without_a_state_says_so(mesh: Mesh) -> None:
    fresh = mesh.world.pod("fresh", {HTTP: "http"})
    path = fresh.socket_dir / "explain.sock"
    wait_until(path.exists, "it listens")
    question = Question(direction="inbound", ip=fresh.address, port=HTTP, source=mesh.client.address, request=PLAIN)
    answer = asyncio.run(ask_incoming(path, question))
    assert answer.version == 0
    assert encode(question).startswith(SIGNATURE)
    mesh.world.push()
