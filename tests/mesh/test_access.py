"""Who may call what: TrafficTargets as sidecars enforce them, and ways around them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from nginx_mesh.compile.state import Grant, Inbound, PathRule

from .world import JSON, Pod, Service, World, wait_until

pytestmark = pytest.mark.mesh

HTTP, TCP, GRPC = 8080, 2525, 50051


@dataclass
class Mesh:
    """A server with all protocols, a client, a client outside of the mesh."""

    world: World
    server: Pod
    client: Pod
    outsider: Pod
    web: Service
    grpc: Service

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
        server.serve("http_server", "--port", str(HTTP))
        server.serve("tcp_server", "--mode", "greeting", "--port", str(TCP))
        server.serve("grpc_server", "--port", str(GRPC))
        yield Mesh(world, server, client, outsider, web, grpc)


@pytest.fixture
def mesh(world_of_mesh: Mesh) -> Mesh:
    world_of_mesh.server.inbound = {}
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


def test_the_access_log_names_the_traffic_target_that_allowed_a_connection(mesh: Mesh) -> None:
    mesh.granted(port=TCP)
    assert "error" not in mesh.client.call("tcp_client", "greeting", mesh.web.vip, "2525")
    assert mesh.logged('"protocol":"tcp"')["policy"] == "test/t"
