"""What the mesh repeats and what it must not: endpoints that read a request to its end, and then fail."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nginx_mesh.api.portprotocol import PortProtocol
from tests.eventually import wait_until

from .world import Pod, Service, World

pytestmark = pytest.mark.mesh

ENDPOINTS = 3
STALE = 5  # kept connections that were closed, for one request
FAULTS = ("close", "reset", "half", "begun")
# REPORT is safe by its RFC; the mesh does not know, as it knows nothing of methods that are not HTTP's own or WebDAV's.
ONCE = ("POST", "PATCH", "LOCK", "REPORT")
KINDS = ("meshed", "plain")
PEERS = {"http_client": ["http_client", "request"], "h2_client": ["h2_client"]}


@dataclass
class Mesh:
    """Services of endpoints with sidecars and without, and a request to each that was sent when the world began."""

    world: World
    client: Pod
    services: dict[tuple[str, str], Service]
    deliveries: Path
    hanging: dict[str, subprocess.Popen[str]]

    def url(self, kind: str, path: str, service: str = "all") -> str:
        return f"http://{self.services[kind, service].vip}/{path}"

    def delivered(self, path: str) -> int:
        """How often requests for this path reached an application."""
        return sum(line.split()[1] == f"/{path}" for line in self.deliveries.read_text().splitlines())


def serve(world: World, name: str, deliveries: Path, *, meshed: bool) -> Pod:
    """An endpoint."""
    pod = world.pod(name, {8080: "http"}, meshed=meshed)
    pod.serve("faulty_server", "--port", "8080", "--deliveries", str(deliveries))
    return pod


def hang(client: Pod, service: Service, kind: str) -> subprocess.Popen[str]:
    """A request that is never answered."""
    url = f"http://{service.vip}/hang/{kind}"
    return client.start("http_client", "request", url, "--method", "POST", "--timeout", "90")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with World() as world:
        deliveries = world.directory / "deliveries"
        deliveries.touch()
        client = world.pod("client")
        pods = {
            kind: [serve(world, f"{kind}-{i}", deliveries, meshed=kind == "meshed") for i in range(ENDPOINTS)]
            for kind in KINDS
        }
        # what a sidecar knows of failures, it knows by service
        names = ["all", "one", "half", *(f"{peer} {method}" for peer in PEERS for method in ("GET", "PUT", "DELETE"))]
        ports: dict[int, tuple[int, PortProtocol]] = {80: (8080, "http"), 50051: (8080, "grpc")}
        services = {
            (kind, name): world.service(f"{kind}-{i}", ports, pods[kind][: 1 if name == "one" else ENDPOINTS])
            for kind in KINDS
            for i, name in enumerate(names)
        }
        world.push()
        hanging = {kind: hang(client, services[kind, "all"], kind) for kind in KINDS}
        yield Mesh(world, client, services, deliveries, hanging)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", PEERS)
def test_what_may_do_harm_twice_is_delivered_once(mesh: Mesh, kind: str, peer: str) -> None:
    """However the endpoint breaks off, in HTTP/1.1 and HTTP/2."""
    processes = {}
    for fault in (*FAULTS, "ok"):
        for method in ONCE:
            path = f"{fault}/{kind}/{peer}/{method}"
            url = mesh.url(kind, path)
            processes[path] = mesh.client.start(*PEERS[peer], url, "--method", method, "--size", "100")
    for process in processes.values():
        process.communicate(timeout=60)
    assert {path: mesh.delivered(path) for path in processes} == dict.fromkeys(processes, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_may_be_repeated_is_tried_at_each_endpoint(mesh: Mesh, kind: str, peer: str, method: str) -> None:
    """By HTTP/2 a sidecar hears of its application at once, and cannot say that it got no byte of an answer."""
    path = f"close/{kind}/{peer}/{method}"
    url = mesh.url(kind, path, f"{peer} {method}")
    mesh.client.call(*PEERS[peer], url, "--method", method)
    tries = 1 if (kind, peer) == ("meshed", "h2_client") else ENDPOINTS
    assert tries <= mesh.delivered(path) <= tries + STALE


@pytest.mark.parametrize(("kind", "tries"), [("meshed", 1), ("plain", ENDPOINTS)])
def test_half_an_answer_is_no_silence(mesh: Mesh, kind: str, tries: int) -> None:
    """An application that gives some of a header is not one that does not answer: its sidecar says 502, no more."""
    path = f"half/{kind}/GET"
    assert mesh.client.get(mesh.url(kind, path, "half"))["status"] == 502
    assert tries <= mesh.delivered(path) <= tries + STALE


def test_kept_connections_that_fail_are_not_all_tried(mesh: Mesh) -> None:
    """An application that closes after it has read the request, on each of a dozen connections that are kept to it."""
    url = mesh.url("plain", "slow", "one")
    for process in [mesh.client.start("http_client", "request", url) for _ in range(12)]:
        assert json.loads(process.communicate(timeout=60)[0])["answers"][0]["status"] == 200
    assert mesh.client.get(mesh.url("plain", "close/kept", "one"))["status"] == 502
    assert 1 < mesh.delivered("close/kept") <= 1 + STALE


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_has_begun_is_not_asked_for_again(mesh: Mesh, kind: str) -> None:
    path = f"begun/{kind}/GET"
    assert "error" in mesh.client.get(mesh.url(kind, path))
    assert mesh.delivered(path) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_grpc_call_is_delivered_once(mesh: Mesh, kind: str) -> None:
    """Each is a POST, whatever its meaning. The server knows no such path, and closes."""
    path = "test.Peer/Unary"
    before = mesh.delivered(path)
    answer = mesh.client.call("grpc_client", "unary", f"{mesh.services[kind, 'all'].vip}:50051", "--timeout", "20")
    assert "error" in answer
    assert mesh.delivered(path) - before == 1


@pytest.mark.parametrize("kind", KINDS)
def test_silence_is_waited_for_a_minute_and_no_request_that_may_do_harm_is_repeated(mesh: Mesh, kind: str) -> None:
    """It was sent when the world began, so that the other tests were not kept waiting."""
    out, _ = mesh.hanging[kind].communicate(timeout=90)
    assert json.loads(out)["answers"][0]["status"] in (502, 504)
    path = f'"path":"/hang/{kind}"'
    wait_until(lambda: path in mesh.client.log, "the access log")
    line = next(line for line in mesh.client.log.splitlines() if path in line)
    assert 60 <= float(json.loads(line)["time_total"]) < 75
    assert mesh.delivered(f"hang/{kind}") == 1
