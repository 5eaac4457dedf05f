"""The error log at the level debug says why a sidecar decided as it did; at other levels it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from nginx_mesh.protocol.state import Breaker, Grant, Inbound, Limit, PathRule, Split, SplitBackend
from tests.eventually import wait_until

from .world import Pod, Service, World

pytestmark = pytest.mark.mesh

HTTP, TCP = 8080, 2525
DECISION = re.compile(r"^\S+ \S+ \[debug\] .*? mesh decision: (.*)$", re.M)


@dataclass
class Mesh:
    """A client; a server of HTTP, behind a breaker and a split, and of TCP; `dead` is a service that nobody serves."""

    world: World
    client: Pod
    server: Pod
    web: Service
    canary: Service
    dead: Service

    def levels(self, level: str) -> None:
        """The level of both sidecars' error logs from now on."""
        self.client.log_level = self.server.log_level = level
        self.world.push()

    def decisions(self, pod: Pod) -> str:
        return "\n".join(DECISION.findall(pod.log))


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with World("strict") as world:
        server = world.pod("server", {HTTP: "http", TCP: "tcp"})
        silent = world.pod("silent", {HTTP: "http"})
        client = world.pod("client")
        web = world.service("web", {80: (HTTP, "http"), 25: (TCP, "tcp")}, [server])
        canary = world.service("canary", {80: (HTTP, "http")}, [server])
        dead = world.service("dead", {80: (HTTP, "http")}, [silent])
        caller = [str(client.spiffe_id)]
        reads = Grant(target="test/reads", sources=caller, matches=[PathRule(methods=["GET"], path_regex="^/echo")])
        limit = Limit(name="test/once", rate=1, burst=0, delay=-1, matches=[PathRule(path_regex="^/echo/limited$")])
        server.inbound[HTTP] = Inbound(protocols=["http"], grants=[reads], limits=[limit])
        server.inbound[TCP] = Inbound(protocols=["tcp"], grants=[Grant(target="test/connections", sources=caller)])
        world.policies = {
            "breaker/test/web:80": Breaker(breaker="test/b", errors=100, timeout_ms=60000),
            "breaker/test/dead:80": Breaker(breaker="test/d", errors=1, timeout_ms=60000),
            "split/test/web:80": Split(split="test/s", backends=[SplitBackend(cluster="test/canary:80", weight=1)]),
        }
        server.serve("http_server", "--port", str(HTTP))
        server.serve("tcp_server", "--mode", "greeting", "--port", str(TCP))
        yield Mesh(world, client, server, web, canary, dead)


def calls(mesh: Mesh) -> None:
    """Calls that are allowed, denied, limited and of TCP, and two to a service whose circuit the first of all opens."""
    url = f"http://{mesh.web.vip}"
    assert (
        mesh.client.get(f"{url}/echo/{'x' * 5000}?token=hidden-query", "Authorization: hidden-header")["status"] == 200
    )
    assert mesh.client.get(f"{url}/echo/denied", method="PUT")["status"] == 403
    assert 503 in [mesh.client.get(f"{url}/echo/limited")["status"] for _ in range(2)]
    assert "error" not in mesh.client.call("tcp_client", "greeting", mesh.web.vip, "25")
    assert 503 in [mesh.client.get(f"http://{mesh.dead.vip}/")["status"] for _ in range(2)]


def test_decisions_are_logged_at_the_level_debug_and_at_no_other(mesh: Mesh) -> None:
    mesh.levels("debug")
    calls(mesh)
    web, dead, me = f"{mesh.web.vip}:80", f"{mesh.dead.vip}:80", mesh.client.spiffe_id
    expected = {
        mesh.client: [
            # sorting, breaker, split, cluster, endpoint, identity
            f'the connection to "{web}" is passed to the listener 127.0.0.1:8888',
            'the circuit breaker of "test/web:80" is closed and lets it pass',
            'the split of "test/web:80" chose the backend "test/canary:80"',
            f'the destination "{web}" of service "test/web:80" goes to the cluster "test/canary:80"',
            f'try 1 goes to the endpoint "{mesh.server.address}:{HTTP}" of the cluster "test/canary:80", by mTLS',
            f'the endpoint proved the expected SPIFFE ID "{mesh.server.spiffe_id}"',
            # the circuit of `dead`
            'the circuit breaker of "test/dead:80" is open and lets nothing pass',
            f'the destination "{dead}" is not called: the circuit of "test/dead:80" is open',
            # TCP
            f'the connection to "{mesh.web.vip}:25" is passed to the listener 127.0.0.1:8891',
            f'the destination "{mesh.web.vip}:25" of service',
        ],
        mesh.server: [
            f"protocol detection on the port {HTTP}: the caller sent a TLS ClientHello\n",
            f'the caller proved the SPIFFE ID "{me}"',
            f'access rules of the port {HTTP} allow GET "/echo/xxx',
            f'of the caller "{me}", grant "test/reads"',
            "no rate limit delays the request",
            f'access rules of the port {HTTP} deny PUT "/echo/denied" of the caller "{me}", grant ""',
            "Lua decides: the tables alone do not let the request pass",
            "the request is refused: access denied",
            'the request is over the rate limit "test/once"',
            "the request is refused: rate limit exceeded",
            f"protocol detection on the port {TCP}: the caller sent a TLS ClientHello that offers nginx-mesh-tcp",
            f'access rules of the port {TCP} allow a TCP connection of the caller "{me}", grant "test/connections"',
        ],
    }
    for pod, lines in expected.items():
        for line in lines:
            wait_until(lambda pod=pod, line=line: line in mesh.decisions(pod), f"{line} in\n{mesh.decisions(pod)}")  # type: ignore[misc]
    mesh.levels("info")
    before = [mesh.decisions(pod) for pod in expected]
    calls(mesh)
    assert [mesh.decisions(pod) for pod in expected] == before


def test_decisions_hold_no_secrets_and_are_bounded(mesh: Mesh) -> None:
    mesh.levels("debug")
    script = "import socket, sys; s = socket.create_connection((sys.argv[1], 80), 10)"
    script += """; s.sendall(b'GET /echo/"\\xff\\xfe HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); s.recv(100)"""
    mesh.client.output("python3", "-c", script, mesh.web.vip)
    calls(mesh)
    for pod in (mesh.client, mesh.server):
        decisions = mesh.decisions(pod)
        assert "hidden" not in decisions
        assert decisions.isascii()
        assert all(line.isprintable() and len(line) < 1000 for line in decisions.splitlines())
    assert r'GET "/echo/\x22\xff\xfe"' in mesh.decisions(mesh.server)
    assert "x" * 180 in mesh.decisions(mesh.server)
    assert "x" * 200 not in mesh.decisions(mesh.server)
