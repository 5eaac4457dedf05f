"""Sidecars put requests into traces and report them to the node: what they pass on, and what they say."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from nginx_mesh.local.net import netns
from nginx_mesh.protocol.state import Grant, Inbound, Limit
from tests.eventually import wait_until

from .world import JSON, SIDECAR_UID, Pod, Service, World

pytestmark = pytest.mark.mesh

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01"
PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])")


class Node:
    """Where a pod's sidecar sends its reports. They are read at once, unless `idle`."""

    def __init__(self, pod: Pod) -> None:
        self.idle = False
        self.reports: list[JSON] = []
        self._path = pod.socket_dir / "report.sock"
        # How many are kept is up to the namespace that the socket was made in; 10 by default.
        pod.output("sysctl", "-w", "net.unix.max_dgram_qlen=512")
        self._socket = netns.run_in_thread(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), pod.namespace)
        self._socket.settimeout(0.05)
        self._socket.bind(str(self._path))
        os.chown(self._path, SIDECAR_UID, SIDECAR_UID)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._socket.close()
        self._path.unlink()

    def of(self, path: str, n: int = 1) -> list[JSON]:
        """The reports about a path, of which there will be this many."""
        wait_until(lambda: len(self._of(path)) >= n, f"{n} reports about {path}")
        return self._of(path)

    def _of(self, path: str) -> list[JSON]:
        return [report for report in self.reports if report.get("path") == path]

    def _read(self) -> None:
        while not self._closed.is_set():
            if self.idle:
                time.sleep(0.01)
                continue
            with suppress(TimeoutError):
                self.reports.append(json.loads(self._socket.recv(65536)))


@dataclass
class Mesh:
    """A client and a server that are traced; `pair` has one more endpoint, whose application is not there."""

    world: World
    client: Pod
    server: Pod
    web: Service
    pair: Service
    callers: Node
    called: Node
    counter: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))

    def sample(self, ratio: float | None) -> None:
        for pod in (self.client, self.server):
            pod.sampler_ratio = ratio
        self.world.push()

    def get(self, *headers: str, path: str = "", **options: str) -> tuple[str, JSON]:
        """A request for a path of its own, and what the application received."""
        path = path or f"/echo/{next(self.counter)}"
        answer = self.client.get(f"http://{self.web.vip}{path}", *headers, **options)
        assert answer["status"] == 200, answer
        return path, answer["body"]


def headers(told: JSON, name: str) -> list[str]:
    """What the application got under a name, however that is spelt."""
    return [value for key, value in told["headers"] if key.lower() == name]


def parent(told: JSON) -> tuple[str, str, bool]:
    """Trace, span and whether it is sampled, of the one traceparent that the application got."""
    (value,) = headers(told, "traceparent")
    found = PARENT.fullmatch(value)
    assert found, value
    return found[1], found[2], int(found[3], 16) & 1 == 1


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with World("strict") as world:
        server = world.pod("server", {8080: "http", 50051: "grpc", 8081: "http"})
        absent = world.pod("absent", {8080: "http"})
        client = world.pod("client")
        pair = world.service("pair", {80: (8080, "http")}, [server, absent])
        web = world.service("web", {80: (8080, "http"), 50051: (50051, "grpc"), 81: (8081, "http")}, [server])
        world.push()
        server.serve("http_server", "--port", "8080")
        server.serve("grpc_server", "--port", "50051")
        nodes = Node(client), Node(server)
        yield Mesh(world, client, server, web, pair, *nodes)
        for node in nodes:
            node.close()


def test_without_telemetry_headers_pass_as_they_are(mesh: Mesh) -> None:
    mesh.sample(None)
    sent = ["TraceParent: whatever", "traceparent: 00-1", "tracestate: a=1", "Tracestate: b=2"]
    _, told = mesh.get(*sent)
    assert [f"{key}: {value}" for key, value in told["headers"] if key.lower().startswith("trace")] == sent
    _, told = mesh.get()
    assert headers(told, "traceparent") == []
    assert mesh.callers.reports == []


def test_a_new_trace_goes_from_the_caller_to_the_application(mesh: Mesh) -> None:
    mesh.sample(1)
    path, told = mesh.get()
    trace, span, sampled = parent(told)
    assert sampled
    (client,) = mesh.callers.of(path)
    (server,) = mesh.called.of(path)
    assert (client["server"], server["server"]) == (0, 1)
    assert client["trace"] == server["trace"] == trace
    assert "parent" not in client
    assert (server["parent"], server["span"]) == (client["span"], span)
    assert client["start_us"] <= server["start_us"]


def test_a_report_says_who_called_whom_and_how_it_went(mesh: Mesh) -> None:
    mesh.sample(1)
    path, _ = mesh.get("User-Agent: test/1.0", path="/echo/a%20b?token=secret", method="PUT")
    path = path.partition("?")[0]
    (client,) = mesh.callers.of(path)
    (server,) = mesh.called.of(path)
    for report in (client, server):
        assert report["method"] == "PUT"
        assert report["status"] == 200
        assert report["user_agent"] == "test/1.0"
        assert report["authority"] == mesh.web.vip
        assert report["mtls"] == 1
        assert report["http2"] == 0
        assert report["tries"] == 1
        assert "secret" not in str(report)
    assert client["peer_id"] == str(mesh.server.spiffe_id)
    assert server["peer_id"] == str(mesh.client.spiffe_id)
    assert client["destination"] == f"{mesh.web.vip}:80"
    assert client["cluster"] == "test/web:80"
    assert client["upstream"] == server["destination"] == f"{mesh.server.address}:8080"
    assert server["client"] == mesh.client.address


def test_the_applications_trace_is_continued(mesh: Mesh) -> None:
    mesh.sample(0)
    path, told = mesh.get(f"Traceparent: {SAMPLED}", "tracestate: vendor=1", "tracestate: other=2")
    trace, span, sampled = parent(told)
    assert (trace, sampled) == (TRACE_ID, True)
    assert headers(told, "tracestate") == ["vendor=1", "other=2"]
    (client,), (server,) = mesh.callers.of(path), mesh.called.of(path)
    assert (client["parent"], server["parent"], server["span"]) == (SPAN_ID, client["span"], span)
    assert {client["trace"], server["trace"]} == {TRACE_ID}


def test_a_parent_that_is_not_sampled_decides(mesh: Mesh) -> None:
    mesh.sample(1)
    given = SAMPLED[:-1] + "0"
    path, told = mesh.get(f"traceparent: {given}")
    assert headers(told, "traceparent") == [given]
    path, _ = mesh.get()
    mesh.called.of(path)
    assert all(report["trace"] != TRACE_ID or report["path"] != path for report in mesh.called.reports)
    assert not any(report["span"] == SPAN_ID for report in mesh.callers.reports)


HOSTILE = (
    ["traceparent: "],
    [f"traceparent: {SAMPLED}x"],
    [f"traceparent: {SAMPLED.upper()}"],
    ["traceparent: 00-" + "0" * 32 + "-" + "0" * 16 + "-01"],
    [f"traceparent: {SAMPLED}", f"traceparent: {SAMPLED}"],
    [f"Traceparent: {SAMPLED}", "TRACEPARENT: x", "traceparent: y"],
    ["traceparent: " + "\xff" * 500],
    ["traceparent: " + "0" * 20000],
)


@pytest.mark.parametrize("sent", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_context_counts_as_none(mesh: Mesh, sent: list[str]) -> None:
    mesh.sample(1)
    path, told = mesh.get(*sent, "tracestate: left=over")
    trace, _, sampled = parent(told)
    assert sampled and trace != TRACE_ID
    assert headers(told, "tracestate") == []
    assert "parent" not in mesh.callers.of(path)[0]


@pytest.mark.parametrize(("ratio", "low", "high"), [(0, 0, 0), (0.5, 120, 180), (1, 300, 300)])
def test_the_ratio_is_the_share_of_traces_and_both_sides_agree(mesh: Mesh, ratio: float, low: int, high: int) -> None:
    mesh.sample(ratio)
    path = f"/echo/ratio-{ratio}"
    answers = mesh.client.call("http_client", "request", f"http://{mesh.web.vip}{path}", "--count", "300")["answers"]
    contexts = [parent(answer["body"]) for answer in answers]
    assert len({trace for trace, _, _ in contexts}) == 300  # also those that are not sampled
    sampled = {trace for trace, _, sampled in contexts if sampled}
    assert low <= len(sampled) <= high
    for node in (mesh.callers, mesh.called):
        assert {report["trace"] for report in node.of(path, len(sampled))} == sampled


def test_a_report_says_why_a_request_was_refused(mesh: Mesh) -> None:
    mesh.sample(1)
    secret = Grant(target="test/nobody", sources=["spiffe://example.org/ns/test/sa/other"])
    slow = Limit(name="test/slow/0", rate=1)
    mesh.server.inbound[8080] = Inbound(protocols=["http"], grants=[secret])
    mesh.world.push()
    assert mesh.client.get(f"http://{mesh.web.vip}/denied")["status"] == 403
    everybody = Grant(target="test/everybody", sources=[str(mesh.client.spiffe_id)])
    mesh.server.inbound[8080] = Inbound(protocols=["http"], grants=[everybody], limits=[slow])
    mesh.world.push()
    statuses = [mesh.client.get(f"http://{mesh.web.vip}/echo/limited")["status"] for _ in range(2)]
    del mesh.server.inbound[8080]
    mesh.world.push()
    assert statuses == [200, 503]
    (denied,) = mesh.called.of("/denied")
    assert (denied["status"], denied["reason"], denied["tries"]) == (403, "access denied", 0)
    assert mesh.callers.of("/denied")[0]["status"] == 403
    passed, limited = mesh.called.of("/echo/limited", 2)
    assert (passed["policy"], passed.get("reason")) == ("test/everybody", None)
    assert (limited["status"], limited["limited_by"]) == (503, "test/slow")
    assert limited["reason"] == "rate limit exceeded"


def test_an_application_that_does_not_answer_has_spans(mesh: Mesh) -> None:
    mesh.sample(1)
    assert mesh.client.get(f"http://{mesh.web.vip}:81/nobody")["status"] == 502
    (server,) = mesh.called.of("/nobody")
    assert server["status"] == 502
    (client,) = mesh.callers.of("/nobody")
    assert (client["status"], client["parent" if "parent" in client else "span"]) == (502, server["parent"])


def test_what_goes_nowhere_has_a_span(mesh: Mesh) -> None:
    mesh.sample(1)
    mesh.world.service("empty", {80: (8080, "http")}, [])
    mesh.world.push()
    empty = mesh.world.services.pop()
    assert mesh.client.get(f"http://{empty.vip}/nowhere")["status"] == 503
    (report,) = mesh.callers.of("/nowhere")
    assert (report["status"], report["reason"]) == (503, "no endpoint of test/empty:80 may be called")


def test_retries_are_one_span_with_their_number(mesh: Mesh) -> None:
    mesh.sample(1)
    wait_until(
        lambda: (
            mesh.client.get(f"http://{mesh.pair.vip}/echo/retried")["status"] == 200
            and any(report["tries"] == 2 for report in mesh.callers.of("/echo/retried"))
        ),
        "a request that was tried again",
    )
    (report,) = [report for report in mesh.callers.of("/echo/retried") if report["tries"] == 2]
    assert report["upstream"] == f"{mesh.server.address}:8080"
    assert report["status"] == 200


def test_grpc_is_traced_with_its_status(mesh: Mesh) -> None:
    mesh.sample(1)
    target = f"{mesh.web.vip}:50051"
    answer = mesh.client.call("grpc_client", "unary", target)["answer"]
    (value,) = [value for key, value in answer["metadata"] if key == "traceparent"]
    (server,) = mesh.called.of("/test.Peer/Unary")
    assert PARENT.fullmatch(value)[2] == server["span"]  # type: ignore[index]
    assert (server["grpc"], server["grpc_status"], server["http2"], server["status"]) == (1, 0, 1, 200)
    mesh.client.call("grpc_client", "fail", target)
    for node in (mesh.callers, mesh.called):
        (failed,) = node.of("/test.Peer/Fail")
        assert (failed["status"], failed["grpc_status"]) == (200, 3)


def test_h2_requests_of_one_connection_are_traced_each(mesh: Mesh) -> None:
    mesh.sample(1)
    given = ["--header", f"traceparent: {SAMPLED}", "--header", "tracestate: a=1"]
    answers = mesh.client.call("h2_client", f"http://{mesh.web.vip}/echo/h2", "--streams", "20", *given)["answers"]
    told = [answer["body"] for answer in answers]
    assert {headers(document, "tracestate")[0] for document in told} == {"a=1"}
    spans = {parent(document)[1] for document in told}
    assert len(spans) == 20
    assert {report["span"] for report in mesh.called.of("/echo/h2", 20)} == spans


def metric(pod: Pod, name: str) -> int:
    text = pod.output("curl", "-s", "http://127.0.0.1:8887/metrics")
    return int(float(re.findall(rf"^{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)[0]))


def test_a_node_that_takes_no_reports_holds_up_no_request(mesh: Mesh) -> None:
    mesh.sample(1)
    before = metric(mesh.client, "nginxplus_reports_dropped_total")
    url = f"http://{mesh.web.vip}/echo/flood"
    mesh.callers.idle = True  # the kernel's queue is full after a few
    answers = mesh.client.call("http_client", "request", url, "--count", "2000")["answers"]
    assert [answer["status"] for answer in answers] == [200] * 2000
    mesh.callers.idle = False

    def dropped() -> int:
        return metric(mesh.client, "nginxplus_reports_dropped_total") - before

    wait_until(
        lambda: dropped() + len(mesh.callers.of("/echo/flood")) == 2000, "every report is taken, or counted as dropped"
    )
    assert dropped() > 0
    mesh.callers.close()
    assert mesh.client.get(url)["status"] == 200
    wait_until(lambda: dropped() + len(mesh.callers.of("/echo/flood")) == 2001, "one more report is dropped")
    mesh.callers = Node(mesh.client)
    path, _ = mesh.get()
    mesh.callers.of(path)


def tap(pod: Pod, seconds: int = 60, max_rps: int = 1000, **wish: Any) -> tuple[int, JSON]:
    """Tell a sidecar to report requests, whether they are traced or not."""
    return pod.control("PUT", "/v1/tap", json.dumps({"seconds": seconds, "max_rps": max_rps, **wish}).encode())


def test_a_tapped_sidecar_reports_what_is_asked_for_until_it_is_told_to_end(mesh: Mesh) -> None:
    mesh.sample(None)
    mesh.get(path="/echo/before")
    assert tap(mesh.server, method="PUT", path="/echo/tap", lowest=200, highest=299)[0] == 200
    for path, method in (
        ("/echo/tap/a", "PUT"),
        ("/echo/tap/b", "GET"),
        ("/echo/other", "PUT"),
        ("/echo/tap/c", "PUT"),
    ):
        mesh.get(path=path, method=method)
    (report,) = mesh.called.of("/echo/tap/c")
    assert (report["tapped"], "trace" in report, report["peer_id"]) == (1, False, str(mesh.client.spiffe_id))
    assert 0 <= report["duration_us"] < 10_000_000
    assert abs(report["start_us"] / 1e6 - time.time()) < 60
    tapped = {report["path"] for report in mesh.called.reports if report["tapped"]}
    assert tapped == {"/echo/tap/a", "/echo/tap/c"}
    assert not any(report["tapped"] for report in mesh.callers.reports)
    assert tap(mesh.server, lowest=500, highest=599)[0] == 200
    mesh.get(path="/echo/fine")
    assert mesh.client.get(f"http://{mesh.web.vip}/status/503")["status"] == 503
    mesh.called.of("/status/503")
    assert tap(mesh.server, seconds=0)[0] == 200
    mesh.get(path="/echo/tap/d", method="PUT")
    assert tap(mesh.server)[0] == 200
    mesh.get(path="/echo/after")
    mesh.called.of("/echo/after")
    assert not any(report["path"] in ("/echo/tap/d", "/echo/before", "/echo/fine") for report in mesh.called.reports)
    tap(mesh.server, seconds=0)


def test_a_tap_knows_the_other_side(mesh: Mesh) -> None:
    mesh.sample(None)
    nobody = "10.77.0.99"
    for pod, node, other in ((mesh.server, mesh.called, mesh.client), (mesh.client, mesh.callers, mesh.server)):
        tap(pod, peers=[nobody])
        mesh.get(path=f"/echo/hidden/{pod.name}")
        tap(pod, peers=[nobody, other.address])
        mesh.get(path=f"/echo/shown/{pod.name}")
        node.of(f"/echo/shown/{pod.name}")
        tap(pod, peers=[mesh.web.vip])
        mesh.get(path=f"/echo/dialled/{pod.name}")
        tap(pod, seconds=0)
    mesh.callers.of("/echo/dialled/client")  # by the Service's address
    reports = [report["path"] for node in (mesh.called, mesh.callers) for report in node.reports]
    assert not [path for path in reports if path.startswith("/echo/hidden") or path == "/echo/dialled/server"]


def test_a_tap_is_bounded_in_rate_and_time(mesh: Mesh) -> None:
    mesh.sample(None)
    tap(mesh.client, seconds=2, max_rps=5)
    url = f"http://{mesh.web.vip}/echo/rate"
    began = time.monotonic()
    mesh.client.call("http_client", "request", url, "--count", "300")
    seconds = time.monotonic() - began
    wait_until(lambda: time.monotonic() - began > 2.5, "the tap is over")
    mesh.get(path="/echo/rate")
    tap(mesh.client)
    mesh.get(path="/echo/marker")
    mesh.callers.of("/echo/marker")
    assert 1 <= len(mesh.callers.of("/echo/rate")) <= 5 * min(seconds, 2) + 7
    tap(mesh.client, seconds=0)


@pytest.mark.parametrize(
    "wish",
    [
        {"seconds": 3600},
        {"seconds": -1},
        {"max_rps": 0},
        {"max_rps": 1e9},
        {"peers": ["x"]},
        {"peers": "10.0.0.1"},
        {"x": 1},
    ],
    ids=str,
)
def test_a_tap_that_is_malformed_is_refused(mesh: Mesh, wish: JSON) -> None:
    status, answer = tap(mesh.client, **wish)
    assert status == 400
    assert answer["error"].startswith("tap ")


@pytest.mark.parametrize("ratio", [-0.1, 1.1, "1", True, []])
def test_a_ratio_that_is_none_is_refused(mesh: Mesh, ratio: Any) -> None:
    state: dict[str, Any] = dict(mesh.client.state())
    settings = {name: getattr(state["settings"], name) for name in state["settings"].__struct_fields__}
    version = mesh.world.next_version()
    update = {
        "base": mesh.client.version,
        "version": version,
        "set": {"settings": {**settings, "sampler_ratio": ratio}},
    }
    status, answer = mesh.client.update(update)
    assert (status, answer["key"]) == (400, "settings")
    assert "sampler_ratio must be a number from 0 to 1" in answer["error"]
