"""Traffic splits on real traffic: who gets which requests, and what happens when backends are not there."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from nginx_mesh.api.portprotocol import PortProtocol
from nginx_mesh.protocol.state import Destination, PathRule, Split, SplitBackend
from tests.eventually import wait_until

from .shares import assert_shares
from .world import Pod, World

pytestmark = pytest.mark.mesh

PORTS: dict[int, PortProtocol] = {8080: "http", 50051: "grpc", 2525: "tcp"}
ALL = {80: (8080, "http"), 90: (50051, "grpc"), 25: (2525, "tcp")}

GREETINGS = """
import socket, sys
for _ in range(int(sys.argv[3])):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as peer:
        print(peer.makefile().readline().split()[1])
"""


class Mesh:
    """A client, and one server behind each of the services v1 (the root), v2 and v3; v0 has none."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.pod("client")
        self.servers = [world.pod(f"s{i}", PORTS) for i in (1, 2, 3)]
        self.v0 = world.service("v0", ALL, [])  # type: ignore[arg-type]
        self.v1, self.v2, self.v3 = (
            world.service(f"v{i}", ALL, [server])  # type: ignore[arg-type]
            for i, server in enumerate(self.servers, start=1)
        )
        for server in self.servers:
            server.serve("http_server", "--port", "8080")
            server.serve("grpc_server", "--port", "50051")
            server.serve("tcp_server", "--mode", "greeting", "--port", "2525")

    def split(self, root: str, weights: Mapping[str, int], *matches: PathRule, port: int = 80) -> None:
        """Add a split to those of the test."""
        backends = [SplitBackend(cluster=f"test/{name}:{port}", weight=weight) for name, weight in weights.items()]
        split = Split(split=f"test/{root}", backends=backends, matches=list(matches))
        self.world.policies[f"split/test/{root}:{port}"] = split

    def push(self) -> None:
        self.world.push([self.client])

    def http(self, number: int, url: str = "", *headers: str, **options: str) -> Counter[str]:
        """Who answered so many requests, on one connection."""
        flags = [f"--{name}={value}" for name, value in options.items()]
        url = url or f"http://{self.v1.vip}/echo"
        answers = self.client.call(
            "http_client", "request", url, "--count", str(number), *flags, *(f"--header={header}" for header in headers)
        )["answers"]
        assert {answer["status"] for answer in answers} == {200}
        return Counter(answer["headers"]["x-served-by"] for answer in answers)

    def tcp(self, number: int) -> Counter[str]:
        """Who greeted so many connections."""
        return Counter(self.client.output(sys.executable, "-c", GREETINGS, self.v1.vip, "25", str(number)).split())


@pytest.fixture(scope="module")
def running() -> Iterator[Mesh]:
    with World("strict") as world:
        mesh = Mesh(world)
        world.push()
        yield mesh


@pytest.fixture
def mesh(running: Mesh) -> Iterator[Mesh]:
    yield running
    running.world.policies.clear()
    running.push()


def test_requests_go_to_backends_by_weight(mesh: Mesh) -> None:
    mesh.split("v1", {"v2": 80, "v3": 15, "v1": 5})
    mesh.push()
    assert_shares(mesh.http(4000), {"s2": 80, "s3": 15, "s1": 5})


def test_weights_need_no_particular_sum(mesh: Mesh) -> None:
    mesh.split("v1", {"v2": 3_000_000, "v3": 1_000_000, "v0": 0})
    mesh.push()
    assert_shares(mesh.http(1500), {"s2": 3, "s3": 1})


def test_http2_is_split_by_stream(mesh: Mesh) -> None:
    mesh.split("v1", {"v2": 3, "v3": 1})
    mesh.push()
    answers = mesh.client.call("h2_client", f"http://{mesh.v1.vip}/echo", "--streams", "400")["answers"]
    assert_shares(Counter(answer["body"]["name"] for answer in answers), {"s2": 3, "s3": 1})


def test_grpc_is_split_by_call(mesh: Mesh) -> None:
    mesh.split("v1", {"v2": 3, "v3": 1}, port=90)
    mesh.push()
    answer = mesh.client.call("grpc_client", "unary", f"{mesh.v1.vip}:90", "--count", "400")
    assert_shares(answer["names"], {"s2": 3, "s3": 1})


def test_tcp_is_split_by_connection(mesh: Mesh) -> None:
    mesh.split("v1", {"v2": 3, "v3": 1, "v0": 4}, port=25)
    mesh.push()
    assert_shares(mesh.tcp(400), {"s2": 3, "s3": 1})


def test_no_connection_matches_what_is_about_requests(mesh: Mesh) -> None:
    mesh.split("v1", {"v2": 1}, PathRule(path_regex=".*"), port=25)
    mesh.push()
    assert mesh.tcp(10) == {"s1": 10}


def test_requests_that_match_anything_go_to_the_backends_and_the_rest_to_the_root(mesh: Mesh) -> None:
    by_header = PathRule(headers={"x-canary": "^yes$", "user-agent": "fox"})
    by_path = PathRule(path_regex="^/slow", methods=["GET"])
    mesh.split("v1", {"v2": 1}, by_header, by_path)
    mesh.push()
    slow = f"http://{mesh.v1.vip}/slow?s=0"
    assert mesh.http(20, "", "X-Canary: yes", "User-Agent: firefox") == {"s2": 20}
    assert mesh.http(20, slow) == {"s2": 20}
    assert mesh.http(20) == {"s1": 20}
    assert mesh.http(20, "", "X-Canary: yes") == {"s1": 20}
    assert mesh.http(20, "", "X-Canary: yes!", "User-Agent: firefox") == {"s1": 20}
    assert mesh.http(20, slow, method="POST") == {"s1": 20}


@pytest.mark.parametrize(
    ("weights", "served"),
    [
        pytest.param({"v0": 9, "v2": 3, "v3": 1}, {"s2": 3, "s3": 1}, id="its share goes to the others"),
        pytest.param({"v0": 1, "v2": 0}, {"s1": 1}, id="nobody with a weight: the root"),
        pytest.param({"nowhere": 9, "v2": 1}, {"s2": 1}, id="a cluster that the state does not have"),
        pytest.param({"v2": 0, "v3": 0}, {"s1": 1}, id="all weights 0: the root"),
        pytest.param({}, {"s1": 1}, id="no backends: the root"),
    ],
)
def test_backends_without_endpoints(mesh: Mesh, weights: dict[str, int], served: dict[str, int]) -> None:
    mesh.split("v1", weights)
    mesh.push()
    assert_shares(mesh.http(300), served)


def test_a_root_without_endpoints_has_its_backends(mesh: Mesh) -> None:
    url = f"http://{mesh.v0.vip}/echo"
    assert mesh.client.get(url)["status"] == 503
    mesh.split("v0", {"v2": 1, "v0": 1})
    mesh.push()
    assert mesh.http(50, url) == {"s2": 50}


def test_a_backend_that_comes_and_goes_is_used_while_it_is_there(mesh: Mesh) -> None:
    mesh.split("v1", {"v0": 1})
    mesh.push()
    assert mesh.http(10) == {"s1": 10}
    mesh.v0.pods.append(mesh.servers[2])
    mesh.push()
    assert mesh.http(10) == {"s3": 10}
    mesh.v0.pods.clear()
    mesh.push()
    assert mesh.http(10) == {"s1": 10}


def test_splits_are_applied_once(mesh: Mesh) -> None:
    """The split of a backend is for those who call the backend itself."""
    mesh.split("v1", {"v2": 1})
    mesh.split("v2", {"v3": 1})
    mesh.push()
    assert mesh.http(20) == {"s2": 20}
    assert mesh.http(20, f"http://{mesh.v2.vip}/echo") == {"s3": 20}


def test_pods_of_a_headless_service_are_split_as_their_service(mesh: Mesh) -> None:
    """What falls through to the root goes to the pod that was dialled."""
    dialled = f"{mesh.servers[0].address}:8080"
    url = f"http://{dialled}/echo"
    mesh.world.policies[f"destination/{dialled}"] = Destination(
        protocol="http", cluster=dialled, service="test/headless:80"
    )
    mesh.push()
    assert mesh.http(10, url) == {"s1": 10}
    mesh.split("headless", {"v2": 3, "headless": 1})
    mesh.push()
    assert_shares(mesh.http(400, url), {"s2": 3, "s1": 1})
    mesh.split("headless", {"v2": 1}, PathRule(methods=["POST"]))
    mesh.push()
    assert mesh.http(10, url) == {"s1": 10}
    assert mesh.http(10, url, method="POST") == {"s2": 10}


def test_a_split_that_is_gone_leaves_the_root(mesh: Mesh) -> None:
    mesh.split("v1", {"v2": 1})
    mesh.push()
    assert mesh.http(10) == {"s2": 10}
    mesh.world.policies.clear()
    mesh.push()
    assert mesh.http(10) == {"s1": 10}


def test_weights_that_change_under_load_lose_nothing(mesh: Mesh) -> None:
    load = mesh.client.start("load", "--http", f"http://{mesh.v1.vip}/echo", "--rate", "150", "--seconds", "5")
    ends = time.monotonic() + 4.5
    share = 0
    while time.monotonic() < ends:
        share = (share + 10) % 110
        mesh.split("v1", {"v2": share, "v1": 100 - share})
        mesh.push()
        time.sleep(0.1)
    answer = json.loads(load.communicate(timeout=30)[0])
    assert answer["failed"] == 0, answer
    assert set(answer["served_by"]) == {"s1", "s2"}


def test_a_worker_that_dies_leaves_the_split(mesh: Mesh) -> None:
    mesh.split("v1", {"v2": 1})
    mesh.split("v1", {"v2": 1}, port=25)
    mesh.push()
    assert mesh.http(10) == {"s2": 10}
    before = mesh.client.workers
    for pid in before:
        mesh.client.output("kill", "-9", str(pid))
    wait_until(lambda: bool(mesh.client.workers) and mesh.client.workers != before, "a new worker")
    assert mesh.tcp(10) == {"s2": 10}
    assert mesh.http(10) == {"s2": 10}


def test_the_access_log_and_metrics_tell_the_backend(mesh: Mesh) -> None:
    mesh.split("v1", {"v3": 1})
    mesh.push()
    mesh.http(1, f"http://{mesh.v1.vip}/echo?to-be-found")
    wait_until(lambda: bool(lines(mesh.client, "to-be-found")), "an access log line")
    entry = json.loads(lines(mesh.client, "to-be-found")[0])
    assert (entry["cluster"], entry["destination"]) == ("test/v3:80", f"{mesh.v1.vip}:80")
    metrics = mesh.client.output("curl", "-sS", "http://127.0.0.1:8887/metrics")
    assert 'upstream="test/v3:80"' in metrics


def lines(pod: Pod, text: str) -> list[str]:
    """Lines of a sidecar's access log."""
    return [line for line in pod.log.splitlines() if text in line and line.startswith("{")]
