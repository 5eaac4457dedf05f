"""What sidecars count is what really happened, to the request and the byte; and it is kept within bounds."""

from __future__ import annotations

import bisect
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nginx_mesh.protocol.state import Breaker, Inbound, Limit
from nginx_mesh.traffic.exposition import read
from nginx_mesh.traffic.flows import flows
from nginx_mesh.traffic.history import History
from tests.eventually import wait_until

from .world import JSON, Pod, Service, World

pytestmark = pytest.mark.mesh

HTTP, TCP, GRPC = 8080, 9000, 50051
MIXED = ("/200/100", "/200/2000", "/201/0", "/204/0", "/301/0", "/404/9", "/200/100", "/429/20", "/500/50", "/503/0")
BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


# A handshake that begins and then ends in one of many ways.
BREAKS_OFF = """
import socket, ssl, struct, sys
host, port, alpn, how = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols([alpn])
if how == "old":
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    context.wrap_bio(received, to_send).do_handshake()
except ssl.SSLWantReadError:
    pass
peer = socket.create_connection((host, int(port)), 10)
peer.sendall(to_send.read())
peer.recv(100)
if how == "reset":
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
elif how == "garbage":
    peer.sendall(b"x" * 100)
    try:
        while peer.recv(4096):
            pass
    except ConnectionError:
        pass
peer.close()
"""


class Counted:
    """What a sidecar exposes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            # the parser names every counter as OpenMetrics would
            (sample.name.removesuffix("_total"), sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series with these labels."""
        name = f"nginxplus_{name}".removesuffix("_total")
        return sum(value for found, own, value in self.samples if found == name and labels.items() <= own.items())

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sums by a label's value, without those that are 0."""
        values = {own[label] for found, own, _ in self.samples if found == f"nginxplus_{name}" and label in own}
        sums = {value: self.total(name, **{label: value}) for value in values}
        return {value: n for value, n in sums.items() if n}


def counted(pod: Pod) -> Counted:
    return Counted(pod.output("curl", "-sS", "--retry", "5", "--retry-connrefused", "http://127.0.0.1:8887/metrics"))


@dataclass
class Mesh:
    """A client and two servers of one service."""

    world: World
    client: Pod
    servers: list[Pod]
    web: Service

    def start(self, protocol: str, *arguments: str) -> subprocess.Popen[str]:
        port = "80" if protocol == "http" else "90"
        return self.client.start("volley", protocol, self.web.vip, port, *arguments)

    def volley(self, protocol: str, *arguments: str) -> JSON:
        port = "80" if protocol == "http" else "90"
        return self.client.call("volley", protocol, self.web.vip, port, *arguments)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with World(mode="strict") as world:
        servers = [world.pod(f"s{i}", {HTTP: "http", TCP: "tcp"}) for i in (1, 2)]
        client = world.pod("client")
        web = world.service("web", {80: (HTTP, "http"), 90: (TCP, "tcp")}, servers)
        world.push()
        for pod in servers:
            pod.serve("target", "--port", str(HTTP), "--tcp", str(TCP))
        yield Mesh(world, client, servers, web)


def added(before: list[Counted], after: list[Counted]) -> Callable[..., float]:
    """How much series of all of the sidecars together have grown."""
    return lambda name, **labels: sum(
        new.total(name, **labels) - old.total(name, **labels) for old, new in zip(before, after, strict=True)
    )


def test_hundred_thousand_requests_are_counted_exactly_by_both_sides_also_while_the_state_changes(mesh: Mesh) -> None:
    pods = [mesh.client, *mesh.servers]
    before = [counted(pod) for pod in pods]
    load = mesh.start("http", "--requests", "100000", "--connections", "16", *MIXED)
    for number in itertools.count():
        # endpoints come and go with requests under way to them; certificates change with each state
        mesh.web.pods[:] = mesh.servers if number % 2 else mesh.servers[:1]
        mesh.web.lb_method = "least_time" if number % 3 else "round_robin"
        mesh.world.push()
        try:
            load.wait(0.5)
            break
        except subprocess.TimeoutExpired:
            pass
    assert number > 3
    assert load.stdout is not None
    sent = json.loads(load.stdout.read())
    mesh.web.pods[:] = mesh.servers
    mesh.world.push()
    after = [counted(pod) for pod in pods]

    assert sent["failed"] == 0
    statuses = {int(code): n for code, n in sent["statuses"].items()}
    assert sum(statuses.values()) == 100_000
    assert len(statuses) == 8
    outgoing, incoming = added(before[:1], after[:1]), added(before[1:], after[1:])
    for status, n in statuses.items():
        assert outgoing("upstream_server_response_latency_ms_count", code=str(status)) == n, status
    for of_class in range(1, 6):
        n = sum(n for status, n in statuses.items() if status // 100 == of_class)
        assert outgoing("upstream_server_responses", code=f"{of_class}xx") == n, of_class
        assert incoming("http_responses_total", code=f"{of_class}xx") == n, of_class
    assert outgoing("upstream_server_requests") == outgoing("upstream_server_mtls_requests") == 100_000
    assert incoming("http_requests_total") == incoming("http_response_latency_ms_count") == 100_000
    assert outgoing("upstream_server_response_latency_ms_bucket", le="+Inf") == 100_000
    assert outgoing("upstream_server_fails") == 0
    assert outgoing("upstream_server_sent") == sent["sent"]
    assert outgoing("upstream_server_received") == sent["received"]
    for pod, old, new in zip(mesh.servers, before[1:], after[1:], strict=True):
        received = new.total("http_requests_total") - old.total("http_requests_total")
        assert received == outgoing("upstream_server_requests", dst_pod=pod.name), pod.name
        assert received > 0


def test_tcp_is_counted_exactly_by_both_sides_and_as_it_goes(mesh: Mesh) -> None:
    pods = [mesh.client, *mesh.servers]
    before = [counted(pod) for pod in pods]
    sent = mesh.volley("tcp", "--requests", "300", "--connections", "16")
    wait_until(lambda: added(before[1:], [counted(pod) for pod in mesh.servers])("stream_connections") == 300, "ends")
    after = [counted(pod) for pod in pods]

    assert (sent["failed"], sent["opened"]) == (0, 300)
    outgoing, incoming = added(before[:1], after[:1]), added(before[1:], after[1:])
    assert outgoing("stream_upstream_server_connections") == 300
    assert outgoing("stream_upstream_server_fails") == 0
    assert outgoing("stream_upstream_server_sent") == sent["sent"]
    assert outgoing("stream_upstream_server_received") == sent["received"]
    assert outgoing("stream_upstream_server_connect_time_count") == 300
    # those that asked for nothing got no byte
    silent = sum(number * number % 90000 == 0 for number in range(300))
    assert outgoing("stream_upstream_server_first_byte_time_count") == 300 - silent
    assert outgoing("stream_upstream_server_response_time_count") == 300
    assert incoming("stream_connections_total", status="200") == 300
    assert incoming("tls_handshakes_total", side="server", result="ok") == 300
    assert outgoing("tls_handshakes_total", side="client", result="ok") == 300

    waits = mesh.client.start("tcp_client", "wait", mesh.web.vip, "90")
    try:
        name = "stream_upstream_server_connections"
        wait_until(lambda: counted(mesh.client).total(name) == after[0].total(name) + 1, "an open connection counts")
    finally:
        waits.kill()


def test_grpc_is_counted_exactly_by_both_sides(mesh: Mesh) -> None:
    server = mesh.servers[0]
    mesh.servers[0].ports = {**server.ports, GRPC: "grpc"}
    prices = mesh.world.service("prices", {GRPC: (GRPC, "grpc")}, [server])
    server.serve("grpc_server", "--port", str(GRPC))
    mesh.world.push()
    before = [counted(mesh.client), counted(server)]
    sent = mesh.client.call("load", "--grpc", f"{prices.vip}:{GRPC}", "--rate", "300", "--seconds", "1")
    after = [counted(mesh.client), counted(server)]
    assert (sent["ok"], sent["failed"]) == (300, 0)
    assert added(before[:1], after[:1])("upstream_server_responses", code="2xx") == 300
    assert added(before[1:], after[1:])("http_responses_total", code="2xx") == 300


def test_percentiles_are_within_a_bucket_of_what_the_caller_measured(mesh: Mesh) -> None:
    history = History(60)
    history.record("client", 0, read(counted(mesh.client).text).counters)
    # of 100 requests 85 take 14 ms, 13 take 70 ms and 2 take 300 ms
    targets = ["/200/10/300"] * 2 + ["/200/10/70"] * 13 + ["/200/10/14"] * 85
    sent = mesh.volley("http", "--requests", "1200", "--connections", "10", *targets)
    history.record("client", 10, read(counted(mesh.client).text).counters)
    total = flows(history.increases(10, 10))[0].counts
    for flow in flows(history.increases(10, 10))[1:]:
        total.add(flow.counts)
    assert total.success == 1200
    measured = sent["quantiles_ms"]
    for q, ms in zip((0.5, 0.9, 0.99), measured, strict=True):
        estimated = total.quantile(q)
        assert estimated is not None
        assert abs(bisect.bisect_left(BOUNDS, estimated) - bisect.bisect_left(BOUNDS, ms)) <= 1, (q, estimated, ms)
    assert measured[0] < measured[1] < measured[2]


def _has_another_worker(pod: Pod, pid: int) -> bool:
    return len(pod.workers) == 1 and pod.workers != [pid]


def test_a_killed_worker_takes_at_most_its_last_second_with_it(mesh: Mesh) -> None:
    for victim in (mesh.client, mesh.servers[0]):
        mesh.web.pods[:] = mesh.servers[:1]
        mesh.world.push()
        name = "upstream_server_requests" if victim is mesh.client else "http_requests_total"
        before = counted(victim).total(name)
        # at 4 ms each, these take 3 s at least
        load = mesh.start("http", "--requests", "3000", "--connections", "4", "/200/10/4")
        time.sleep(2.2)
        (pid,) = victim.workers
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(_has_another_worker, victim, pid), "another worker")
        assert load.stdout is not None
        sent = json.loads(load.stdout.read())
        answered = sum(sent["statuses"].values())
        # the timer may be late on a busy machine
        lost = answered - max((n for when, n in sent["done"] if when < killed - 1.5), default=0)
        lost -= answered - min((n for when, n in sent["done"] if when >= killed), default=answered)
        after = counted(victim).total(name) - before
        # what was under way was not answered, or is done again
        assert answered - lost <= after <= answered + 4, (victim.name, sent["statuses"], lost)
        assert killed < sent["done"][-1][0]
    mesh.web.pods[:] = mesh.servers
    mesh.world.push()


def test_every_metric_has_help_and_type_and_promtool_finds_only_the_names_of_the_contract(mesh: Mesh) -> None:
    mesh.volley("http", "--requests", "20", *MIXED)
    mesh.volley("tcp", "--requests", "3")
    documented = Path(__file__).parents[2].joinpath("docs/reference/metrics.md").read_text()
    accepted = {
        f"{name} {lint}"
        for lint, names in re.findall(
            r"^- `([^`]*suffix|[^`]*units)`: ((?:`\w+`,?(?: |\n  )?)+)", documented, re.MULTILINE
        )
        for name in re.findall(r"`(\w+)`", names)
    }
    found = set()
    for pod in (mesh.client, mesh.servers[0]):
        text = counted(pod).text
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=30
        )
        found |= set((done.stdout + done.stderr).strip().splitlines())
        names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}
        families = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert families == {line.split(" ")[2] for line in text.splitlines() if line.startswith("# HELP")}
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in names} == families
        assert all(f"`{family}`" in documented for family in families)
    assert found == accepted


def test_a_sidecar_without_a_state_has_metrics_that_can_be_read(mesh: Mesh) -> None:
    found = counted(mesh.world.pod("new"))
    assert found.total("state_version") == found.total("http_requests_total") == 0
    assert found.total("connections_accepted") > 0
    assert "certificate_expiry" not in found.text


def test_what_fails_is_counted_where_it_fails(mesh: Mesh) -> None:
    client, server = mesh.client, mesh.servers[0]
    ports = server.ports
    mesh.web.pods[:] = [server]
    stranger = mesh.world.pod("stranger", meshed=False)
    try:
        # another ID than what callers expect: the caller ends the handshake
        server.expected_id = "spiffe://example.org/ns/test/sa/somebody-else"
        mesh.world.push()
        before = [counted(client), counted(server)]
        assert client.get(f"http://{mesh.web.vip}/200/1")["status"] == 502
        assert "error" in client.call("tcp_client", "greeting", mesh.web.vip, "90")
        now = [counted(client), counted(server)]
        outgoing, incoming = added(before[:1], now[:1]), added(before[1:], now[1:])
        assert outgoing("upstream_server_fails") == 1
        assert outgoing("upstream_server_responses", code="5xx") == 1
        assert outgoing("stream_upstream_server_connections") == outgoing("stream_upstream_server_fails") == 1
        assert outgoing("tls_handshakes_total", side="client", result="failed") == 2
        assert outgoing("tls_handshakes_total", side="client", result="ok") == 0
        assert incoming("stream_connections_total", status="200") == 0

        # who proves nothing, or speaks plaintext, or nonsense, where mTLS is strict
        server.expected_id = ""
        mesh.world.push()
        before = [counted(client), counted(server)]
        curl = ["curl", "-sSk", "-o", "/dev/null", "-w", "%{http_code}"]
        assert stranger.output(*curl, f"https://{server.address}:{HTTP}/200/1") == "400"
        assert stranger.output(*curl, f"http://{server.address}:{HTTP}/200/1") == "400"
        assert stranger.output(*curl, "-X", "@", f"http://{server.address}:{HTTP}/200/1") == "400"
        assert "refused" in stranger.output("sh", "-c", f"curl -sS http://{server.address}:{TCP}/ 2>&1 || echo refused")
        incoming = added(before[1:], [counted(server)])
        assert incoming("tls_handshakes_total", side="server", result="failed") == 1
        assert incoming("http_responses_total", code="4xx") == incoming("http_requests_total") == 3
        assert incoming("stream_connections_total", status="403") == 1

        # whom no rule allows
        for port, protocol in server.ports.items():
            server.inbound[port] = Inbound(protocols=[protocol], grants=[])
        mesh.world.push()
        before = [counted(client), counted(server)]
        assert client.get(f"http://{mesh.web.vip}/200/1")["status"] == 403
        assert "error" in client.call("tcp_client", "greeting", mesh.web.vip, "90")
        incoming = added(before[1:], [counted(server)])
        assert incoming("access_denied_total") == 2
        assert incoming("stream_connections_total", status="403") == 1
        assert counted(client).total("upstream_server_fails") == before[0].total("upstream_server_fails")

        # an application that is not there
        server.inbound = {7: Inbound(protocols=["http"])}
        server.ports = {7: "http"}
        silent = mesh.world.service("silent", {80: (7, "http")}, [server])
        mesh.world.push()
        before = [counted(client), counted(server)]
        assert client.get(f"http://{silent.vip}/200/1")["status"] == 502
        now = [counted(client), counted(server)]
        assert added(before[:1], now[:1])("upstream_server_fails", upstream="test/silent:80") == 1
        assert added(before[1:], now[1:])("http_responses_total", code="5xx") == 1

        # another endpoint whose application is
        other = mesh.servers[1]
        other.inbound[7], other.ports = Inbound(protocols=["http"]), {7: "http"}
        other.serve("target", "--port", "7")
        half = mesh.world.service("half", {80: (7, "http")}, [server, other])
        mesh.world.push()
        before = [counted(client), counted(server), counted(other)]
        assert client.call("volley", "http", half.vip, "80", "--requests", "20")["statuses"] == {"200": 20}
        now = [counted(client), counted(server), counted(other)]
        outgoing = added(before[:1], now[:1])
        fails = outgoing("upstream_server_fails")
        assert fails == outgoing("upstream_server_fails", dst_pod=server.name) > 0
        assert added(before[1:2], now[1:2])("http_responses_total", code="5xx") == fails
        assert outgoing("upstream_server_requests") == outgoing("upstream_server_requests", dst_pod=other.name) == 20
        assert added(before[2:], now[2:])("http_requests_total") == 20
    finally:
        for pod in mesh.servers:
            pod.ports = ports
            pod.inbound.clear()
        server.expected_id = ""
        mesh.web.pods[:] = mesh.servers
        mesh.world.push()


def changed_conf(world: World, old: str, new: str) -> str:
    """The sidecar's nginx.conf with one thing in it another."""
    conf = world.image.joinpath("etc/nginx-mesh/nginx.conf").read_text()
    assert conf.count(old) == 1
    return conf.replace(old, new)


@pytest.mark.parametrize(("port", "alpn"), [(HTTP, "http/1.1"), (TCP, "nginx-mesh-tcp")])
def test_every_handshake_that_breaks_off_is_a_failed_one(mesh: Mesh, port: int, alpn: str) -> None:
    server = mesh.servers[0]
    before = counted(server)
    ways = ("close", "reset", "garbage", "old")
    for way in ways:
        mesh.client.output(
            "setpriv", "--reuid=2102", sys.executable, "-c", BREAKS_OFF, server.address, str(port), alpn, way
        )
    name = "tls_handshakes_total"
    wait_until(
        lambda: added([before], [counted(server)])(name, side="server", result="failed") == len(ways),
        "they are counted",
    )
    grown = added([before], [counted(server)])
    assert grown(name) == len(ways)
    assert grown("stream_connections_total", status="500") == (len(ways) if port == TCP else 0)
    assert grown("http_requests_total") == 0


def test_what_left_the_state_goes_from_the_metrics_and_comes_back_from_zero(mesh: Mesh) -> None:
    """With half a second of patience in place of ten minutes."""
    begin = "init_worker_by_lua_block {"
    short = 'require("mesh.series").GONE_AFTER = 0.5; require("mesh.metrics").SWEEP_INTERVAL = 0.2;'
    pod = mesh.world.pod("forgets", {HTTP: "http"}, conf=changed_conf(mesh.world, begin, f"{begin} {short}"))
    pod.inbound[HTTP] = Inbound(protocols=["http"], limits=[Limit(name="test/limit", rate=1, delay=-1)])
    breaker = f"breaker/test/{mesh.web.name}:80"
    mesh.world.policies[breaker] = Breaker(breaker="test/breaker", errors=100, timeout_ms=1000)
    mesh.world.push()
    sent = pod.call("volley", "http", mesh.web.vip, "80", "--requests", "40")
    assert sent["statuses"] == {"200": 40}
    for _ in range(3):
        mesh.client.get(f"http://{pod.address}:{HTTP}/200/1")
    time.sleep(1)
    found = counted(pod)
    assert found.by("upstream_server_requests", "dst_pod").keys() == {"s1", "s2"}
    assert found.by("rate_limited", "ratelimit") == {"test/limit": 2}
    assert 'nginxplus_circuit_breaker_trips_total{namespace="test",pod="forgets",breaker="test/breaker"' in found.text

    kept = found.total("upstream_server_requests", dst_pod="s1")
    mesh.web.pods[:] = mesh.servers[:1]
    del mesh.world.policies[breaker]
    pod.inbound.clear()
    mesh.world.push([pod])
    left = ('dst_pod="s2"', "test/limit", "test/breaker")
    wait_until(lambda: not any(name in counted(pod).text for name in left), "series of what left are gone")
    assert counted(pod).by("upstream_server_requests", "dst_pod") == {"s1": kept}
    assert counted(pod).total("metrics_dropped") == 0

    mesh.web.pods[:] = mesh.servers
    mesh.world.push([pod])
    pod.call("volley", "http", mesh.web.vip, "80", "--requests", "40")
    found = counted(pod)
    assert (
        0
        < found.total("upstream_server_requests", dst_pod="s2")
        == 40 + kept - found.total("upstream_server_requests", dst_pod="s1")
    )


def test_a_memory_for_counters_that_is_full_costs_series_that_are_idle_and_no_request(mesh: Mesh) -> None:
    conf = changed_conf(mesh.world, "lua_shared_dict mesh_metrics 8m;", "lua_shared_dict mesh_metrics 160k;")
    pod = mesh.world.pod("full", conf=conf)
    many = [mesh.world.service(f"many-{n}", {80: (HTTP, "http")}, mesh.servers[:1]) for n in range(200)]
    try:
        mesh.world.push([pod])
        for batch in (many[:100], many[100:]):
            out = pod.output(
                "curl", "-sS", "-w", "%{http_code}\n", *(f"http://{service.vip}/204/0" for service in batch)
            )
            assert out.split() == ["204"] * 100
            time.sleep(2.5)
        found = counted(pod)
        counts = found.by("upstream_server_requests", "upstream")
        dropped = found.total("metrics_dropped")
        assert dropped > 0
        assert set(counts.values()) == {1}
        assert len(counts) + dropped == 200
        assert f"test/{many[-1].name}:80" in counts
        assert f"test/{many[0].name}:80" not in counts
        assert "mesh_metrics" not in pod.log
    finally:
        del mesh.world.services[1:]
