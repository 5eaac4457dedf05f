"""The ten load balancing methods on real traffic, and what happens to requests when endpoints fail, come and go."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import get_args

import pytest

from nginx_mesh.protocol.state import LbMethod
from tests.eventually import wait_until

from .world import JSON, Peer, Pod, Service, World

pytestmark = pytest.mark.mesh

METHODS: Sequence[LbMethod] = get_args(LbMethod)
# Those that look at how an endpoint does, not only at whose turn it is.
WATCHFUL = [method for method in METHODS if method not in ("round_robin", "random")]


class Mesh:
    """A client and a service of three servers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.pod("client")
        self.servers = [world.pod(f"server-{i}", {8080: "http"}) for i in range(3)]
        self.peers: dict[Pod, Peer] = {}
        self.web: Service = world.service("web", {80: (8080, "http")}, self.servers)

    def serve(self, *, slow: float = 0) -> None:
        """(Re)start all servers; the last one takes `slow` seconds for each answer."""
        for peer in self.peers.values():
            peer.stop()
        self.peers = {}
        for server in self.servers:
            delay = ("--delay", str(slow)) if slow and server is self.servers[-1] else ()
            self.peers[server] = server.serve("http_server", "--port", "8080", *delay)

    def use(self, method: LbMethod) -> None:
        # A service of its own name each time: no measurement of an earlier test counts.
        self.world.services.clear()
        self.web = self.world.service(f"web-{time.monotonic_ns()}", {80: (8080, "http")}, self.servers, method)
        self.world.push()

    def load(self, rate: int, seconds: float, *more: str) -> JSON:
        url = f"http://{self.web.vip}/echo"
        return self.client.call("load", "--http", url, "--rate", str(rate), "--seconds", str(seconds), *more)


def cut_off(pod: Pod, verdict: str) -> None:
    """Let what comes to a pod's sidecar meet an nftables verdict."""
    # The image's nft: an older one of the host may not read what the image's wrote.
    nft = ("chroot", str(pod.world.image), "nft")
    pod.output(*nft, "add table inet gone")
    pod.output(*nft, "add chain inet gone input { type filter hook input priority -300; policy accept; }")
    pod.output(*nft, f"add rule inet gone input tcp dport 8901 {verdict}")


def answers_a_request(pod: Pod) -> bool:
    """Whether a pod's application holds a connection of its sidecar."""
    return bool(pod.output("ss", "-Htn", "state", "established", "sport", "=", ":8080").strip())


def reconnect(pod: Pod) -> None:
    """Undo cut_off."""
    pod.output("chroot", str(pod.world.image), "nft", "delete table inet gone")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with World("strict") as world:
        yield Mesh(world)


def test_round_robin_takes_turns(mesh: Mesh) -> None:
    mesh.serve()
    mesh.use("round_robin")
    answer = mesh.load(150, 2)
    assert answer["failed"] == 0, json.dumps(answer)
    assert sorted(answer["served_by"].values()) == [100, 100, 100]


@pytest.mark.parametrize("method", ["random", "random two", "least_conn"])
def test_equal_endpoints_get_about_the_same(mesh: Mesh, method: LbMethod) -> None:
    mesh.serve()
    mesh.use(method)
    answer = mesh.load(200, 3)
    assert answer["failed"] == 0, json.dumps(answer)
    # 600 requests, 200 expected each, standard deviation 11.5: five of them
    assert all(140 < n < 260 for n in answer["served_by"].values()), answer["served_by"]


@pytest.mark.parametrize("method", WATCHFUL)
def test_a_slow_endpoint_gets_less(mesh: Mesh, method: LbMethod) -> None:
    mesh.serve(slow=0.3)
    mesh.use(method)
    answer = mesh.load(100, 4)
    assert answer["failed"] == 0, json.dumps(answer)
    share = answer["served_by"].get("server-2", 0) / answer["ok"]
    assert share < 0.2, answer["served_by"]
    assert set(answer["served_by"]) >= {"server-0", "server-1"}


@pytest.mark.parametrize("method", METHODS)
def test_a_dead_application_fails_no_idempotent_request(mesh: Mesh, method: LbMethod) -> None:
    """Its sidecar lives and answers fast that nobody is there; that must not attract requests."""
    mesh.serve()
    mesh.use(method)
    load = mesh.client.start("load", "--http", f"http://{mesh.web.vip}/echo", "--rate", "100", "--seconds", "2.5")
    time.sleep(1)
    mesh.peers.pop(mesh.servers[1]).stop()
    out, _ = load.communicate(timeout=30)
    answer = json.loads(out)
    assert answer["failed"] == 0, json.dumps(answer)


@pytest.mark.parametrize("method", METHODS)
def test_a_vanished_pod_fails_no_request(mesh: Mesh, method: LbMethod) -> None:
    """Its address refuses: every request for it goes to another endpoint, GET or not."""
    mesh.serve()
    mesh.use(method)
    gone = mesh.servers[0]
    cut_off(gone, "reject with tcp reset")
    try:
        answer = mesh.load(100, 1.5)
    finally:
        reconnect(gone)
    assert answer["failed"] == 0, json.dumps(answer)
    assert "server-0" not in answer["served_by"]


def test_a_failed_endpoint_is_tried_again_after_ten_seconds(mesh: Mesh) -> None:
    mesh.serve()
    mesh.use("round_robin")
    gone = mesh.servers[0]
    cut_off(gone, "reject with tcp reset")
    mesh.load(50, 0.5)
    reconnect(gone)
    assert "server-0" not in mesh.load(50, 0.5)["served_by"]
    wait_until(lambda: "server-0" in mesh.load(50, 0.5)["served_by"], "the endpoint is used again", 15)


def test_an_endpoint_that_swallows_packets_fails_no_idempotent_request(mesh: Mesh) -> None:
    mesh.serve()
    mesh.use("round_robin")
    gone = mesh.servers[0]
    # Not on a connection kept from an earlier test: there silence may as well be an application that takes its time,
    # and is waited for as long (proxy_read_timeout).
    old = mesh.client.workers
    for pid in old:
        mesh.client.output("kill", "-9", str(pid))
    wait_until(lambda: bool(mesh.client.workers) and mesh.client.workers != old, "a new worker")
    cut_off(gone, "drop")
    try:
        answer = mesh.load(20, 8, "--timeout", "20")
    finally:
        reconnect(gone)
    assert answer["failed"] == 0, json.dumps(answer)
    assert set(answer["served_by"]) == {"server-1", "server-2"}


@pytest.mark.parametrize(("method", "answers"), [("GET", True), ("PUT", True), ("POST", False), ("PATCH", False)])
def test_only_idempotent_requests_are_repeated(mesh: Mesh, method: str, answers: bool) -> None:
    """A sidecar that dies with the request in hand: GET and PUT are tried elsewhere, POST and PATCH are not."""
    mesh.serve()
    mesh.use("round_robin")
    url = f"http://{mesh.web.vip}/slow?s=6"
    processes = [mesh.client.start("http_client", "request", url, "--method", method) for _ in range(3)]
    wait_until(lambda: all(map(answers_a_request, mesh.servers)), "each server has one of the requests", 5)
    victim = mesh.servers[0]
    for pid in victim.workers:
        victim.output("kill", "-9", str(pid))
    statuses = sorted(json.loads(process.communicate(timeout=30)[0])["answers"][0]["status"] for process in processes)
    assert statuses == ([200, 200, 200] if answers else [200, 200, 502])


@pytest.mark.parametrize("method", METHODS)
def test_endpoints_come_and_go_under_load(mesh: Mesh, method: LbMethod) -> None:
    """1 → 3 → 2: no request fails, a new endpoint takes part within a second and is not flooded."""
    mesh.serve()
    mesh.use(method)
    mesh.web.pods = mesh.servers[:1]
    mesh.world.push([mesh.client])
    load = mesh.client.start("load", "--http", f"http://{mesh.web.vip}/echo", "--rate", "150", "--seconds", "4.5")
    time.sleep(1.5)
    mesh.web.pods = list(mesh.servers)
    mesh.world.push([mesh.client])
    time.sleep(1.5)
    mesh.web.pods = mesh.servers[1:]
    mesh.world.push([mesh.client])
    out, _ = load.communicate(timeout=30)
    answer = json.loads(out)
    assert answer["failed"] == 0, json.dumps(answer)
    served = answer["served_by"]
    assert set(served) == {"server-0", "server-1", "server-2"}
    # alone for a third of the time, less what the load takes to start; then one of three; then none
    assert 150 <= served["server-0"] < 450, served


def test_an_answer_that_nginx_does_not_take_is_not_held_against_endpoints(mesh: Mesh) -> None:
    """Whoever can provoke one, a header over 16 KiB say, must not empty a service of its endpoints."""
    script = (
        "import socket\n"
        "s = socket.create_server(('0.0.0.0', 8080))\n"
        "while True:\n"
        "  c, _ = s.accept()\n"
        "  head = c.recv(65536)\n"
        "  big = b'X-Big: ' + b'x' * (20000 if b'/big' in head else 10) + b'\\r\\n'\n"
        "  c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n' + big + b'\\r\\nok')\n"
        "  c.close()\n"
    )
    for peer in mesh.peers.values():
        peer.stop()
    mesh.peers = {}
    servers = [subprocess.Popen(pod.command("python3", "-c", script)) for pod in mesh.servers]
    mesh.world.processes += servers
    mesh.use("round_robin")
    url = f"http://{mesh.web.vip}"
    wait_until(lambda: mesh.client.get(f"{url}/small").get("status") == 200, "the servers listen", 15)
    logged = [pod.log.count("too big header") for pod in mesh.servers]
    assert mesh.client.get(f"{url}/big")["status"] == 502
    grown = [pod.log.count("too big header") - before for pod, before in zip(mesh.servers, logged, strict=True)]
    for server in servers:
        server.kill()
        server.wait()
    assert sum(grown) == 1, f"the request was repeated: {grown}"
