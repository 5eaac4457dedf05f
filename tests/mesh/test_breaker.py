"""Circuit breakers on real traffic: what opens them, who answers meanwhile, and what closes them again."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import get_args

import pytest

from nginx_mesh.api.portprotocol import PortProtocol
from nginx_mesh.node.explain import ask_outgoing
from nginx_mesh.protocol.explain import Question, Request
from nginx_mesh.protocol.state import Breaker, LbMethod, Split, SplitBackend
from tests.eventually import wait_until

from .test_balancing import cut_off, reconnect
from .test_sidecar_state import series
from .world import JSON, Peer, Pod, Service, World

pytestmark = pytest.mark.mesh

METHODS: Sequence[LbMethod] = get_args(LbMethod)
PORTS: dict[int, PortProtocol] = {8080: "http", 8081: "http", 50051: "grpc", 2525: "tcp", 2526: "tcp"}

# Ends an answer in the middle.
BREAKS_OFF = """
import socket
s = socket.create_server(("0.0.0.0", 8081))
print("listening", flush=True)
while True:
    c, _ = s.accept()
    c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf")
    c.close()
"""

# Takes connections and what comes on them, and never says a word.
SINK = """
import socket
s = socket.create_server(("0.0.0.0", 2525))
print("listening", flush=True)
while True:
    c, _ = s.accept()
    while c.recv(65536):
        pass
    c.close()
"""

GREETINGS = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 80), 10) as peer:
        try:
            print((peer.makefile().readline().split() or ["closed", "closed"])[1])
        except ConnectionError:
            print("closed")
"""


class Mesh:
    """A client; two servers and a fallback, one meshed and one in plaintext."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.pod("client")
        self.servers = [world.pod(f"s{i}", PORTS) for i in (1, 2)]
        self.other = world.pod("other", PORTS)
        self.plain = world.pod("plain", PORTS, meshed=False)
        for pod in (*self.servers, self.other, self.plain):
            pod.serve("http_server", "--port", "8080")
        self.other.serve("grpc_server", "--port", "50051")
        self.other.serve("tcp_server", "--mode", "greeting", "--port", "2525")
        self.plain.serve("tcp_server", "--mode", "greeting", "--port", "2525")
        self._names = (f"web-{number}" for number in itertools.count())

    def service(self, *pods: Pod, target: int = 8080, lb_method: LbMethod = "round_robin") -> Service:
        """A service at port 80, of a name that no breaker has known before."""
        return self.world.service(next(self._names), {80: (target, PORTS[target])}, pods, lb_method)

    def guard(self, service: Service, fallback: Service | None = None, *, errors: int = 3, timeout: int = 3000) -> None:
        """Put a breaker before a service; `timeout` is milliseconds."""
        self.world.policies[f"breaker/{key(service)}"] = Breaker(
            breaker="test/cb", errors=errors, timeout_ms=timeout, fallback=key(fallback) if fallback else ""
        )

    def push(self) -> None:
        self.world.push([self.client])

    def get(self, service: Service, path: str = "/echo", **options: str) -> JSON:
        return self.client.get(f"http://{service.vip}{path}", **options)

    def served_by(self, service: Service) -> str:
        """Who answers, or the status without an answer of an application."""
        answer = self.get(service)
        return str(answer["headers"].get("x-served-by", answer["status"]))

    def fail(self, service: Service, number: int) -> None:
        assert self.statuses(service, "/status/500", number) == [500] * number

    def statuses(self, service: Service, path: str, number: int) -> list[int]:
        """Of as many requests, in quick succession on one connection."""
        url = f"http://{service.vip}{path}"
        answers = self.client.call("http_client", "request", url, "--count", str(number))["answers"]
        return [answer["status"] for answer in answers]

    def state(self, service: Service) -> str:
        """Of the service's breaker, as the client's status API says."""
        status = json.loads(self.client.output("curl", "-sS", "http://127.0.0.1:8886/status"))
        return str(status["circuit_breakers"][key(service)]["state"])

    def until_half_open(self, service: Service) -> None:
        wait_until(lambda: self.state(service) == "half-open", "the circuit is half-open", 15)

    def is_being_tried(self, service: Service) -> bool:
        """Whether the service's breaker lets nothing pass as it waits for its trial."""
        request = Request().with_host("web")
        question = Question(direction="outbound", ip=service.vip, port=80, source=self.client.address, request=request)
        said = asyncio.run(ask_outgoing(self.client.socket_dir / "explain.sock", question))
        (circuit,) = said.branches[0].breakers
        return circuit.state == "half-open" and circuit.wait > 0

    def greetings(self, service: Service, number: int) -> list[str]:
        """Who greets as many TCP connections, or "closed"."""
        return self.client.output(sys.executable, "-c", GREETINGS, service.vip, str(number)).split()

    def script(self, pod: Pod, text: str) -> Peer:
        """Run a server of this file."""
        argv = pod.command(sys.executable, "-c", text)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.world.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        return Peer(process, 0)


def key(service: Service) -> str:
    """The name of the service's only port in states."""
    return f"test/{service.name}:80"


@pytest.fixture(scope="module")
def running() -> Iterator[Mesh]:
    with World() as world:
        mesh = Mesh(world)
        world.push()
        yield mesh


@pytest.fixture
def mesh(running: Mesh) -> Iterator[Mesh]:
    yield running
    running.world.policies.clear()
    running.world.services.clear()


@pytest.mark.parametrize("fallback", ["other", "plain"])
def test_failures_open_it_and_the_fallback_answers_with_and_without_mtls(mesh: Mesh, fallback: str) -> None:
    web, other = mesh.service(mesh.servers[0]), mesh.service(getattr(mesh, fallback))
    same = mesh.service(mesh.servers[0])
    mesh.guard(web, other, timeout=60_000)
    mesh.push()
    assert mesh.served_by(web) == "s1"
    mesh.fail(web, 2)
    assert (mesh.served_by(web), mesh.state(web)) == ("s1", "closed")
    mesh.fail(web, 1)
    assert [mesh.served_by(web) for _ in range(3)] == [fallback] * 3
    assert mesh.state(web) == "open"
    assert mesh.served_by(same) == "s1", "it is the service's, not the endpoint's"


def test_without_a_fallback_callers_are_told_at_once(mesh: Mesh) -> None:
    web = mesh.service(mesh.servers[0])
    mesh.guard(web, timeout=60_000)
    mesh.push()
    mesh.fail(web, 3)
    answer = mesh.get(web)
    assert answer["status"] == 503
    assert answer["body"] == f"nginx-mesh: the circuit of {key(web)} is open and there is no fallback to call\n"


def test_a_fallback_without_endpoints_is_none(mesh: Mesh) -> None:
    web, empty = mesh.service(mesh.servers[0]), mesh.service()
    mesh.guard(web, empty, timeout=60_000)
    mesh.push()
    mesh.fail(web, 3)
    assert f"the circuit of {key(web)} is open" in mesh.get(web)["body"]


@pytest.mark.parametrize("method", METHODS)
def test_it_works_with_every_balancing_method_on_both_sides(mesh: Mesh, method: LbMethod) -> None:
    web = mesh.service(*mesh.servers, lb_method=method)
    other = mesh.service(mesh.other, mesh.plain, lb_method=method)
    mesh.guard(web, other, errors=4, timeout=60_000)
    mesh.push()
    mesh.fail(web, 4)
    answers = mesh.client.call("http_client", "request", f"http://{web.vip}/echo", "--count", "4")["answers"]
    assert {answer["headers"].get("x-served-by") for answer in answers} <= {"other", "plain"}
    assert mesh.state(web) == "open"


def test_it_closes_again_with_every_balancing_method(mesh: Mesh) -> None:
    services = [mesh.service(*mesh.servers, lb_method=method) for method in METHODS]
    for web in services:
        mesh.guard(web, errors=1, timeout=1000)
    mesh.push()
    for web in services:
        mesh.fail(web, 1)
    for web in services:
        mesh.until_half_open(web)
        assert mesh.served_by(web) in ("s1", "s2")
        assert mesh.state(web) == "closed"


def test_a_refusing_application_opens_it(mesh: Mesh) -> None:
    web, other = mesh.service(mesh.servers[0], target=8081), mesh.service(mesh.other)
    mesh.guard(web, other, timeout=60_000)
    mesh.push()
    assert mesh.statuses(web, "/", 3) == [502] * 3
    assert mesh.served_by(web) == "other"


def test_a_timeout_opens_it(mesh: Mesh) -> None:
    web, other = mesh.service(mesh.servers[1], target=8081), mesh.service(mesh.other)
    mesh.guard(web, other, errors=1, timeout=60_000)
    mesh.push()
    # an endpoint that was never called: no connection is kept that could be silent for longer
    for pid in mesh.client.workers:
        mesh.client.output("kill", "-9", str(pid))
    cut_off(mesh.servers[1], "drop")
    try:
        wait_until(lambda: mesh.get(web).get("status") in (502, 504), "a request times out", 20)
    finally:
        reconnect(mesh.servers[1])
    assert mesh.served_by(web) == "other"


def test_an_answer_that_breaks_off_is_a_failure(mesh: Mesh) -> None:
    web, other = mesh.service(mesh.servers[0], target=8081), mesh.service(mesh.other)
    mesh.guard(web, other, timeout=60_000)
    mesh.push()
    server = mesh.script(mesh.servers[0], BREAKS_OFF)
    try:
        for _ in range(3):
            assert "error" in mesh.client.call("http_client", "request", f"http://{web.vip}/")
        assert mesh.served_by(web) == "other"
    finally:
        server.stop()


def test_what_callers_do_wrong_does_not_open_it(mesh: Mesh) -> None:
    web = mesh.service(mesh.servers[0])
    mesh.guard(web, errors=2, timeout=60_000)
    mesh.push()
    for _ in range(4):
        assert mesh.get(web, "/status/404")["status"] == 404
        assert "error" in mesh.get(web, "/slow?s=2", timeout="0.1")
    assert mesh.served_by(web) == "s1"
    assert mesh.state(web) == "closed"


def test_failures_that_are_far_apart_do_not_open_it(mesh: Mesh) -> None:
    web = mesh.service(mesh.servers[0])
    mesh.guard(web, errors=2, timeout=1000)
    mesh.push()
    for _ in range(3):
        mesh.fail(web, 1)
        time.sleep(1.1)
    assert mesh.state(web) == "closed"


def test_one_request_at_a_time_tries_whether_it_works_again(mesh: Mesh) -> None:
    web, other = mesh.service(mesh.servers[0]), mesh.service(mesh.other)
    mesh.guard(web, other, timeout=4000)
    mesh.push()
    mesh.fail(web, 3)
    mesh.until_half_open(web)
    trial = mesh.client.start("http_client", "request", f"http://{web.vip}/slow?s=3")
    wait_until(lambda: mesh.is_being_tried(web), "the trial is under way")
    answers = mesh.client.call("http_client", "request", f"http://{web.vip}/echo", "--count", "4")["answers"]
    assert {answer["headers"]["x-served-by"] for answer in answers} == {"other"}
    answer = json.loads(trial.communicate(timeout=30)[0])["answers"][0]
    assert answer["headers"]["x-served-by"] == "s1"
    assert mesh.served_by(web) == "s1"
    assert mesh.state(web) == "closed"
    mesh.fail(web, 2)
    assert mesh.state(web) == "closed", "failures before it opened were held against it"


def test_a_trial_that_fails_opens_it_again_and_trips_are_counted(mesh: Mesh) -> None:
    web, other = mesh.service(mesh.servers[0]), mesh.service(mesh.other)
    mesh.guard(web, other)
    mesh.push()
    labels = f'upstream="{key(web)}"'
    mesh.get(web)
    assert of_service(mesh.client, "state", labels) == 0
    assert of_service(mesh.client, "trips_total", labels) == 0
    mesh.fail(web, 3)
    assert of_service(mesh.client, "state", labels) == 1
    assert of_service(mesh.client, "trips_total", labels) == 1
    mesh.until_half_open(web)
    assert of_service(mesh.client, "state", labels) == 2
    mesh.fail(web, 1)
    assert mesh.served_by(web) == "other"
    assert of_service(mesh.client, "trips_total", labels) == 2


def of_service(client: Pod, name: str, labels: str) -> int:
    """A metric of a breaker."""
    (value,) = [value for found, value in series(client, f"circuit_breaker_{name}").items() if labels in found]
    return value


def test_a_trial_whose_caller_leaves_leaves_it_to_the_next(mesh: Mesh) -> None:
    web, other = mesh.service(mesh.servers[0]), mesh.service(mesh.other)
    mesh.guard(web, other, timeout=2000)
    mesh.push()
    mesh.fail(web, 3)
    mesh.until_half_open(web)
    assert "error" in mesh.get(web, "/slow?s=5", timeout="0.2")
    assert mesh.served_by(web) == "s1"
    assert mesh.state(web) == "closed"


def test_it_stays_as_it_is_while_the_state_changes_around_it(mesh: Mesh) -> None:
    web, other, third = mesh.service(mesh.servers[0]), mesh.service(mesh.other), mesh.service(mesh.plain)
    mesh.guard(web, other, timeout=60_000)
    mesh.push()
    mesh.fail(web, 2)
    mesh.guard(third)
    mesh.push()
    mesh.fail(web, 1)
    assert mesh.state(web) == "open"
    web.pods = list(mesh.servers)
    mesh.push()
    assert mesh.served_by(web) == "other"
    mesh.guard(web, third, timeout=60_000)
    mesh.push()
    assert mesh.served_by(web) == "plain"
    mesh.guard(web, third, errors=4, timeout=60_000)
    mesh.push()
    assert mesh.served_by(web) in ("s1", "s2"), "another breaker begins anew"
    mesh.fail(web, 4)
    assert mesh.served_by(web) == "plain"
    del mesh.world.policies[f"breaker/{key(web)}"]
    mesh.push()
    assert mesh.served_by(web) in ("s1", "s2")


def test_http2_and_grpc_calls_open_it_and_get_unavailable_in_their_way(mesh: Mesh) -> None:
    prices, other = mesh.service(mesh.servers[0], target=50051), mesh.service(mesh.other, target=50051)
    mesh.guard(prices, errors=2, timeout=60_000)
    mesh.push()
    call = ("grpc_client", "unary", f"{prices.vip}:80")
    for _ in range(2):
        answer = mesh.client.call(*call)
        assert answer["code"] == "UNAVAILABLE"
        assert "circuit" not in answer["error"]
    answer = mesh.client.call(*call)
    assert answer["code"] == "UNAVAILABLE"
    assert answer["error"] == f"the circuit of {key(prices)} is open and there is no fallback to call"
    mesh.guard(prices, other, errors=2, timeout=60_000)
    mesh.push()
    assert mesh.client.call(*call)["names"] == {"other": 1}


def test_what_a_grpc_server_says_of_itself_counts(mesh: Mesh) -> None:
    """UNAVAILABLE of the application, in HTTP 200; INVALID_ARGUMENT is the caller's fault."""
    prices = mesh.service(mesh.servers[1], target=50051)
    mesh.guard(prices, errors=2, timeout=60_000)
    mesh.push()
    server = mesh.script(mesh.servers[1], UNAVAILABLE)
    try:
        for code in ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "UNAVAILABLE", "UNAVAILABLE"):
            method = {"INVALID_ARGUMENT": "fail", "UNAVAILABLE": "unary"}[code]
            assert mesh.client.call("grpc_client", method, f"{prices.vip}:80")["code"] == code
            if code == "INVALID_ARGUMENT":
                assert mesh.state(prices) == "closed"
        assert mesh.state(prices) == "open"
    finally:
        server.stop()


def test_a_grpc_deadline_that_passes_is_a_failure_and_a_call_that_is_cancelled_before_is_none(mesh: Mesh) -> None:
    prices = mesh.service(mesh.servers[1], target=50051)
    mesh.guard(prices, errors=1, timeout=60_000)
    mesh.push()
    server = mesh.script(mesh.servers[1], SINK.replace("2525", "50051"))
    try:
        script = (
            "import grpc, sys\n"
            "channel = grpc.insecure_channel(sys.argv[1])\n"
            "call = channel.unary_unary('/test.Peer/Unary').future(b'', timeout=float(sys.argv[2]))\n"
            "if sys.argv[3] == 'cancel':\n"
            "  import time; time.sleep(0.5); call.cancel()\n"
            "else:\n"
            "  print(call.code().name)\n"
        )
        target = f"{prices.vip}:80"
        mesh.client.output(sys.executable, "-c", script, target, "20", "cancel")
        assert mesh.state(prices) == "closed"
        assert mesh.client.output(sys.executable, "-c", script, target, "1", "wait") == "DEADLINE_EXCEEDED\n"
        wait_until(lambda: mesh.state(prices) == "open", "the circuit is open")
    finally:
        server.stop()


UNAVAILABLE = """
import asyncio, grpc, grpc.aio

async def refuse(message, context):
    await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

async def blame(message, context):
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "yours")

async def main():
    server = grpc.aio.server()
    methods = {"Unary": refuse, "Fail": blame}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", handlers),))
    server.add_insecure_port("0.0.0.0:50051")
    await server.start()
    print("listening", flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""


@pytest.mark.parametrize("fallback", ["other", "plain", None])
@pytest.mark.parametrize("victim", ["s1", "plain"])
def test_tcp(mesh: Mesh, victim: str, fallback: str | None) -> None:
    """Nobody listens: the pod's kernel refuses, or its sidecar takes the connection and its application does not."""
    dead = mesh.servers[0] if victim == "s1" else mesh.plain
    web = mesh.service(dead, target=2526)
    mesh.guard(web, mesh.service(getattr(mesh, fallback), target=2525) if fallback else None)
    mesh.push()
    assert mesh.greetings(web, 3) == ["closed"] * 3
    assert mesh.state(web) == "open"
    assert mesh.greetings(web, 1) == [fallback or "closed"]
    server = dead.serve("tcp_server", "--mode", "greeting", "--port", "2526")
    try:
        mesh.until_half_open(web)
        assert mesh.greetings(web, 1) == [victim]
        assert mesh.state(web) == "closed"
    finally:
        server.stop()


def test_a_tcp_server_that_never_says_a_word_does_not_fail(mesh: Mesh) -> None:
    web = mesh.service(mesh.servers[0], target=2525)
    mesh.guard(web, errors=1, timeout=60_000)
    mesh.push()
    server = mesh.script(mesh.servers[0], SINK)
    try:
        script = (
            "import socket, sys\n"
            "with socket.create_connection((sys.argv[1], 80), 10) as s:\n"
            "  s.sendall(b'x' * 1000)\n"
            "  s.shutdown(socket.SHUT_WR)\n"
            "  print(len(s.recv(10)))\n"
        )
        assert mesh.client.output(sys.executable, "-c", script, web.vip).strip() == "0"
        assert mesh.state(web) == "closed"
    finally:
        server.stop()


def all_to(mesh: Mesh, root: Service, backend: Service) -> None:
    """All requests for `root` go to `backend`."""
    mesh.world.policies[f"split/{key(root)}"] = Split(
        split="test/split", backends=[SplitBackend(cluster=key(backend), weight=1)]
    )


def test_a_backend_has_its_own_breaker_and_fallback(mesh: Mesh) -> None:
    root, backend, other = mesh.service(mesh.servers[0]), mesh.service(mesh.servers[1]), mesh.service(mesh.other)
    all_to(mesh, root, backend)
    mesh.guard(root, errors=100, timeout=60_000)
    mesh.guard(backend, other, timeout=60_000)
    mesh.push()
    assert mesh.served_by(root) == "s2"
    mesh.fail(root, 3)
    assert mesh.served_by(root) == "other"
    assert (mesh.state(root), mesh.state(backend)) == ("closed", "open")
    assert mesh.served_by(backend) == "other", "there is one count, whoever calls the backend"


def test_the_roots_breaker_comes_before_its_split_and_its_fallback_is_not_split(mesh: Mesh) -> None:
    root, backend = mesh.service(mesh.servers[0]), mesh.service(mesh.servers[1])
    other, far = mesh.service(mesh.other), mesh.service(mesh.plain)
    all_to(mesh, root, backend)
    all_to(mesh, other, far)
    mesh.guard(root, other, timeout=60_000)
    mesh.guard(backend, far, errors=4, timeout=60_000)
    mesh.push()
    mesh.fail(root, 3)
    assert mesh.served_by(root) == "other"
    # each failure counted for both
    assert mesh.served_by(backend) == "s2"
    mesh.fail(backend, 1)
    assert mesh.served_by(backend) == "plain"


def test_a_split_to_the_root_itself_asks_its_breaker_once(mesh: Mesh) -> None:
    root = mesh.service(mesh.servers[0])
    all_to(mesh, root, root)
    mesh.guard(root, errors=4, timeout=60_000)
    mesh.push()
    mesh.fail(root, 3)
    assert mesh.served_by(root) == "s1"
    mesh.fail(root, 1)
    assert mesh.get(root)["status"] == 503


def test_load_meets_the_fallback_and_nothing_else_while_it_is_open(mesh: Mesh) -> None:
    web, other = mesh.service(mesh.servers[0]), mesh.service(mesh.other)
    mesh.guard(web, other, timeout=60_000)
    mesh.push()
    mesh.fail(web, 3)
    answer = mesh.client.call("load", "--http", f"http://{web.vip}/echo", "--rate", "200", "--seconds", "1.5")
    assert answer["failed"] == 0, answer
    assert set(answer["served_by"]) == {"other"}
