"""Every protocol that an application speaks gets through two sidecars as it would without them, in each mTLS mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nginx_mesh.protocol.state import MtlsMode
from tests.eventually import wait_until

from .world import Pod, Service, World

pytestmark = pytest.mark.mesh

MODES: tuple[MtlsMode, ...] = ("off", "permissive", "strict")


class Mesh:
    """One client and one server that speaks everything, shared by the tests of this file."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = world.pod(
            "server", {8080: "http", 50051: "grpc", 2525: "tcp", 2526: "tcp", 2527: "tcp", 2528: "tcp"}
        )
        self.client = world.pod("client")
        self.web: Service = world.service(
            "web",
            {
                80: (8080, "http"),
                8000: (8080, "http"),
                50051: (50051, "grpc"),
                25: (2525, "tcp"),
                26: (2526, "tcp"),
                27: (2527, "tcp"),
                28: (2528, "tcp"),
            },
            [self.server],
        )
        for arguments in (
            ("http_server", "--port", "8080"),
            ("grpc_server", "--port", "50051"),
            ("tcp_server", "--mode", "greeting", "--port", "2525"),
            ("tcp_server", "--mode", "echo", "--port", "2526"),
            ("tcp_server", "--mode", "count", "--port", "2527"),
            ("tcp_server", "--mode", "lines", "--port", "2528"),
        ):
            self.server.serve(*arguments)

    @property
    def url(self) -> str:
        return f"http://{self.web.vip}"


@pytest.fixture(scope="module")
def shared() -> Iterator[Mesh]:
    with World() as world:
        yield Mesh(world)


@pytest.fixture(params=MODES)
def mesh(shared: Mesh, request: pytest.FixtureRequest) -> Mesh:
    shared.world.mode = request.param
    shared.world.push()
    return shared


def test_http_reaches_the_application_unchanged(mesh: Mesh) -> None:
    answer = mesh.client.get(f"{mesh.url}/echo?q=a%20b//c", "X-Custom_Header: 1", "Cookie: a=b; c=d")
    assert answer["status"] == 200, answer
    seen = answer["body"]
    assert seen["target"] == "/echo?q=a%20b//c"
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert headers["host"] == mesh.web.vip
    assert headers["x-custom_header"] == "1"
    assert headers["cookie"] == "a=b; c=d"
    expected = None if mesh.world.mode == "off" else str(mesh.client.spiffe_id)
    assert headers.get("x-forwarded-client-spiffe-id") == expected


def test_a_caller_cannot_claim_an_identity_by_a_header(mesh: Mesh) -> None:
    answer = mesh.client.get(f"{mesh.url}/echo", "X-Forwarded-Client-Spiffe-Id: spiffe://example.org/ns/x/sa/admin")
    values = [value for name, value in answer["body"]["headers"] if name.lower() == "x-forwarded-client-spiffe-id"]
    assert values == ([] if mesh.world.mode == "off" else [str(mesh.client.spiffe_id)])


def test_ipv6_services_work(mesh: Mesh) -> None:
    assert mesh.client.get(f"http://[{mesh.web.vip6}]/echo")["status"] == 200


def test_two_service_ports_share_a_target_port(mesh: Mesh) -> None:
    assert mesh.client.get(f"{mesh.url}:8000/echo")["status"] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PROPFIND", "REPORT", "PURGE", "X-STRANGE_ONE"])
def test_methods_get_through(mesh: Mesh, method: str) -> None:
    assert mesh.client.get(f"{mesh.url}/echo", method=method)["body"]["method"] == method


@pytest.mark.parametrize("code", [204, 304, 404, 418, 500, 503])
def test_statuses_get_through(mesh: Mesh, code: int) -> None:
    assert mesh.client.get(f"{mesh.url}/status/{code}")["status"] == code


def test_pipelined_requests_are_answered_in_order(mesh: Mesh) -> None:
    answer = mesh.client.call("http_client", "pipeline", f"{mesh.url}/echo", "--count", "20")
    assert "error" not in answer, answer
    assert len(answer["answers"]) == 20


def test_streamed_responses_arrive_as_they_are_sent(mesh: Mesh) -> None:
    answer = mesh.client.call("http_client", "chunks", f"{mesh.url}/chunks?n=4&delay=0.6")
    assert "error" not in answer, answer
    assert answer["lag"] < 0.5, f"a chunk was held back for {answer['lag']:.3f} s"


def test_streamed_request_bodies_arrive_as_they_are_sent(mesh: Mesh) -> None:
    arguments = ("--count", "4", "--delay", "0.6", "--size", "1000")
    answer = mesh.client.call("http_client", "upload-chunks", f"{mesh.url}/upload?stamps=1", *arguments)
    assert "error" not in answer, answer
    assert answer["lag"] < 0.5, f"a chunk was held back for {answer['lag']:.3f} s"


def test_a_conversation_inside_one_request(mesh: Mesh) -> None:
    answer = mesh.client.call("http_client", "duplex", f"{mesh.url}/duplex", "--count", "4")
    assert "error" not in answer, answer


def test_expect_100_continue(mesh: Mesh) -> None:
    answer = mesh.client.call("http_client", "expect", f"{mesh.url}/upload", "--size", "100000")
    assert "error" not in answer, answer
    assert answer["status"] == 200


def test_websocket(mesh: Mesh) -> None:
    answer = mesh.client.call("http_client", "websocket", f"ws://{mesh.web.vip}/ws", "--count", "10", "--size", "70000")
    assert "error" not in answer, answer


def test_h2c_with_concurrent_streams(mesh: Mesh) -> None:
    answer = mesh.client.call("h2_client", f"{mesh.url}/upload", "--streams", "8", "--size", "100000")
    assert "error" not in answer, answer
    assert [stream["status"] for stream in answer["answers"]] == [200] * 8


@pytest.mark.parametrize("method", ["unary", "download", "upload", "chat", "deadline", "cancel", "fail", "unknown"])
def test_grpc(mesh: Mesh, method: str) -> None:
    answer = mesh.client.call("grpc_client", method, f"{mesh.web.vip}:50051", "--count", "5")
    assert "error" not in answer, answer


def test_tcp_server_speaks_first(mesh: Mesh) -> None:
    answer = mesh.client.call("tcp_client", "greeting", mesh.web.vip, "25", "--idle", "0.5")
    assert "error" not in answer, answer
    assert answer["waited"] < 0.95


def test_tcp_half_close(mesh: Mesh) -> None:
    answer = mesh.client.call("tcp_client", "count", mesh.web.vip, "27", "--size", "3000000")
    assert "error" not in answer, answer


def test_tcp_both_ways_at_once(mesh: Mesh) -> None:
    answer = mesh.client.call("tcp_client", "echo", mesh.web.vip, "26", "--size", "5000000")
    assert "error" not in answer, answer


def test_a_pod_address_is_callable_like_a_service(mesh: Mesh) -> None:
    assert mesh.client.get(f"http://{mesh.server.address}:8080/echo")["status"] == 200
    assert "error" not in mesh.client.call("tcp_client", "greeting", mesh.server.address, "2525")


def test_a_pod_calls_itself_through_its_service(mesh: Mesh) -> None:
    answer = mesh.server.get(f"{mesh.url}/echo")
    assert answer["status"] == 200
    headers = {name.lower(): value for name, value in answer["body"]["headers"]}
    expected = None if mesh.world.mode == "off" else str(mesh.server.spiffe_id)
    assert headers.get("x-forwarded-client-spiffe-id") == expected
    assert "error" not in mesh.server.call("tcp_client", "greeting", mesh.web.vip, "25")


@pytest.mark.parametrize("direction", ["download", "upload"])
def test_a_gibibyte_passes_in_constant_memory(shared: Mesh, direction: str) -> None:
    shared.world.mode = "strict"
    shared.world.push()
    size = 1 << 30
    before = _memory(shared.server) + _memory(shared.client)
    if direction == "download":
        answer = shared.client.call("http_client", "download", f"{shared.url}/bytes/{size}", seconds=240)
    else:
        answer = shared.client.call(
            "http_client", "upload", f"{shared.url}/upload", "--size", str(size), "--chunked", seconds=240
        )
    assert "error" not in answer, answer
    grown = _memory(shared.server) + _memory(shared.client) - before
    assert grown < 4 << 20, f"the sidecars grew by {grown >> 20} MiB"


def _memory(pod: Pod) -> int:
    """Peak resident memory of the pod's nginx workers, bytes."""
    total = 0
    for pid in pod.workers:
        with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - procfs
            total += next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10
    return total


def test_addresses_outside_the_mesh(shared: Mesh) -> None:
    shared.world.outside("203.0.113.7")
    shared.world.serve_outside("tcp_server", "--mode", "greeting", "--port", "2500")
    shared.world.mode = "permissive"
    shared.world.push()
    assert "error" not in shared.client.call("tcp_client", "greeting", "203.0.113.7", "2500")
    shared.world.mode = "strict"
    shared.world.push()
    assert "error" in shared.client.call("tcp_client", "greeting", "203.0.113.7", "2500", "--timeout", "3")
    wait_until(lambda: "it is not meshed and mTLS is strict" in shared.client.log, "the refusal in the log")


def test_an_idle_tcp_connection_stays(shared: Mesh) -> None:
    shared.world.mode = "strict"
    shared.world.push()
    answer = shared.client.call("tcp_client", "lines", shared.web.vip, "28", "--count", "3", "--idle", "6")
    assert "error" not in answer, answer


def test_internal_listeners_are_no_way_around(shared: Mesh) -> None:
    """An application that connects to the sidecar's internal ports directly gets nowhere."""
    shared.world.mode = "permissive"
    shared.world.push()
    for port in (*range(8888, 8895), 8900, 8901):
        code = (
            "import socket;"
            f"s=socket.create_connection(('127.0.0.1',{port}),3);s.settimeout(3);"
            "s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n');"
            "print(s.recv(100)[:12])"
        )
        try:
            out = shared.server.output("python3", "-c", f"try:\n exec({code!r})\nexcept OSError as e: print('closed')")
        except TimeoutError:
            out = "closed"
        assert not out.startswith("b'HTTP/1.1 2"), f"port {port} answered {out}"
