"""The sidecar and its state: nothing before the first, nothing half of a bad one, everything after a crash."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nginx_mesh.protocol.state import Breaker, Cluster, Destination, Endpoint, Update
from tests.eventually import wait_until

from .world import JSON, Pod, Service, World, cpu

pytestmark = pytest.mark.mesh

HOUR = 3600.0


class Mesh:
    """A client and a server of HTTP."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = world.pod("server", {8080: "http", 2525: "tcp"})
        self.client = world.pod("client")
        self.web: Service = world.service("web", {80: (8080, "http"), 25: (2525, "tcp")}, [self.server])
        self.server.serve("http_server", "--port", "8080")
        self.server.serve("tcp_server", "--mode", "greeting", "--port", "2525")

    def http(self) -> int:
        return int(self.client.get(f"http://{self.web.vip}/echo", timeout="5").get("status", 0))


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with World("strict") as world:
        yield Mesh(world)


@pytest.fixture(scope="module")
def running() -> Iterator[Mesh]:
    with World("strict") as world:
        mesh = Mesh(world)
        world.push()
        yield mesh


def test_a_sidecar_without_a_state_lets_nothing_through(mesh: Mesh) -> None:
    for pod, url in (
        (mesh.client, f"http://{mesh.web.vip}/echo"),
        (mesh.client, f"http://{mesh.server.address}:8080/"),
    ):
        assert pod.get(url, timeout="3").get("status", 503) == 503
    mesh.world.push([mesh.client])
    assert mesh.http() in (0, 502, 503)
    mesh.world.push([mesh.server])
    # the endpoint that had no state is trusted again after its rest
    wait_until(lambda: mesh.http() == 200, "the mesh works", 15)


def test_readiness_follows_state_and_identity(mesh: Mesh) -> None:
    url = f"http://{mesh.server.address}:8895/health-redirects/sidecar/ready"
    assert mesh.client.get(url).get("status") is None, "the client's own sidecar has no state"
    outsider = mesh.world.pod("outsider", meshed=False)
    assert outsider.get(url)["status"] == 503
    mesh.world.push()
    assert outsider.get(url)["status"] == 200
    mesh.server.identity = mesh.world.authority.identity(mesh.server.spiffe_id, valid=(-HOUR, -1))
    mesh.world.push()
    assert outsider.get(url)["status"] == 503


def _size(pod: Pod) -> int:
    return pod.log_path.stat().st_size


GOOD_SETTINGS: JSON = {
    "mtls_mode": "strict",
    "trust_domain": "example.org",
    "client_max_body_size": 0,
    "log_level": "warn",
    "log_format": "default",
    "addresses": [],
    "labels": {},
}
GOOD_ENTRIES: JSON = {"destination/10.0.0.1:80": {"protocol": "http", "cluster": "evil"}}
BAD_ENTRIES: dict[str, tuple[str, Any, str]] = {
    "unknown key": ("nonsense", {}, "key"),
    "unknown kind": ("nonsense/1", {}, "key"),
    "port too high": ("inbound/70000", {"protocols": ["http"]}, "port"),
    "port not a number": ("inbound/x", {"protocols": ["http"]}, "port"),
    "unknown protocol": ("inbound/80", {"protocols": ["quic"]}, "protocols"),
    "protocols not a list": ("inbound/80", {"protocols": {"a": 1}}, "protocols"),
    "unknown field": ("inbound/80", {"protocols": ["http"], "extra": 1}, "extra"),
    "address without port": ("destination/10.0.0.1", {"protocol": "http", "cluster": "x"}, "address"),
    "address not an address": ("destination/localhost:80", {"protocol": "http", "cluster": "x"}, "address"),
    "entry not an object": ("destination/10.0.0.1:80", "x", "object"),
    "unknown balancing": ("cluster/x", {"lb_method": "best", "endpoints": {}}, "lb_method"),
    "endpoint not an address": ("cluster/x", {"lb_method": "random", "endpoints": {"x": {"tls": False}}}, "endpoints"),
    "mTLS without identity": (
        "cluster/x",
        {"lb_method": "random", "endpoints": {"10.0.0.1:1": {"tls": True}}},
        "spiffe",
    ),
    "wrong type": ("cluster/x", {"lb_method": "random", "endpoints": {"10.0.0.1:1": {"tls": "yes"}}}, "tls"),
    "negative body size": ("settings", {**GOOD_SETTINGS, "client_max_body_size": -1}, "client_max_body_size"),
    "unknown mode": ("settings", {**GOOD_SETTINGS, "mtls_mode": "relaxed"}, "mtls_mode"),
    "missing field": ("settings", {"mtls_mode": "off"}, "lacks"),
    "bad certificate": ("identity", {"spiffe_id": "x", "svid": "x", "key": "x", "bundle": "x"}, "certificate"),
    "limit at no address": (
        "inbound/80",
        {"protocols": ["http"], "limits": [{"name": "x", "rate": 1, "addresses": ["10.0.0.1", "::1", "web"]}]},
        "IP address",
    ),
    "rate of zero": ("inbound/80", {"protocols": ["http"], "limits": [{"name": "x", "rate": 0}]}, "rate"),
    "negative weight": (
        "split/default/a:80",
        {"split": "default/a", "backends": [{"cluster": "default/b:80", "weight": -1}]},
        "weight",
    ),
    "split without backends": ("split/default/a:80", {"split": "default/a"}, "backends"),
    "breaker that is always open": (
        "breaker/default/a:80",
        {"breaker": "default/a", "errors": 0, "timeout_ms": 1000},
        "errors",
    ),
    "breaker too quick": ("breaker/default/a:80", {"breaker": "default/a", "errors": 1, "timeout_ms": 1}, "timeout_ms"),
    "grants without sources": ("inbound/80", {"protocols": ["http"], "grants": [{"target": "x"}]}, "sources"),
}


@pytest.mark.parametrize("flaw", BAD_ENTRIES)
def test_a_malformed_state_is_refused_whole(running: Mesh, flaw: str) -> None:
    key, value, reason = BAD_ENTRIES[flaw]
    before = running.client.version
    update = {"base": before, "version": before + 1, "set": {**GOOD_ENTRIES, key: value}}
    status, answer = running.client.update(update)
    assert status == 400, answer
    assert reason in f"{answer['error']} {answer.get('key')}"
    assert running.client.version == before
    assert running.client.get("http://10.0.0.1/", timeout="3").get("status") is None, "a part of it was taken"
    assert running.http() == 200


def test_a_key_that_does_not_belong_to_its_certificate_is_refused(running: Mesh) -> None:
    authority = running.world.authority
    one, other = (authority.identity(running.client.spiffe_id) for _ in range(2))
    mixed = msgspec.structs.replace(one, key=other.key)
    before = running.client.version
    status, answer = running.client.update(Update(base=before, version=before + 1, set_={"identity": mixed}))
    assert (status, answer["key"]) == (400, "identity")
    assert "key" in answer["error"]
    assert running.http() == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"base": 1}', b'{"version": "x"}', b"[" * 100000]
)
def test_garbage_on_the_control_socket_is_refused(running: Mesh, body: bytes) -> None:
    status, answer = running.client.control("PUT", "/v1/state", body)
    assert status == 400, answer
    assert answer["error"]
    assert running.http() == 200


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(update=JSON_VALUES, entry=JSON_VALUES, kind=st.sampled_from(["settings", "inbound/80", "cluster/c", "probe//p"]))
def test_no_json_brings_the_sidecar_down(running: Mesh, update: Any, entry: Any, kind: str) -> None:
    version = running.client.version
    for candidate in (update, {"base": version, "version": version + 1, "set": {kind: entry}}):
        status, _ = running.client.control("PUT", "/v1/state", json.dumps(candidate).encode())
        assert status in (200, 400, 409)


def test_an_update_on_another_version_is_turned_down(running: Mesh) -> None:
    version = running.client.version
    assert running.client.update({"base": version - 1, "version": version + 1}) == (409, {"version": version})


def test_endpoints_change_one_by_one(mesh: Mesh) -> None:
    mesh.world.push()
    second = mesh.world.pod("second", {8080: "http"})
    second.serve("http_server", "--port", "8080")
    mesh.world.push([second])
    version = mesh.client.version
    endpoint = Endpoint(tls=True, spiffe_id=str(second.spiffe_id))
    change = {"test/web:80": {f"{second.address}:8080": endpoint, f"{mesh.server.address}:8080": None}}
    assert mesh.client.update(Update(base=version, version=version + 1, endpoints=change))[0] == 200
    answer = mesh.client.get(f"http://{mesh.web.vip}/echo")
    assert answer["body"]["name"] == "second"


def test_a_whole_state_is_taken_in_once_though_all_of_it_is_in_use(mesh: Mesh) -> None:
    """Clusters of TCP are in use at once. Time grows with the state, and what is as it was costs next to nothing."""
    state: dict[str, Any] = dict(mesh.client.state())
    endpoint = Endpoint(tls=False, labels={"dst_pod": "x"})

    def push(number: int) -> float:
        """CPU seconds that it takes to push so many services, of which all have another endpoint than before."""
        turn = next(turns)
        for at in range(number):
            name = f"test/many-{at}:90"
            address = f"10.96.{1 + at // 250}.{at % 250}:90"
            state[f"destination/{address}"] = Destination(protocol="tcp", cluster=name)
            state[f"breaker/{name}"] = Breaker(breaker="test/cb", errors=1, timeout_ms=1000)
            state[f"cluster/{name}"] = Cluster(lb_method="random", endpoints={f"10.97.0.1:{turn}": endpoint})
        before = cpu(mesh.client)
        for _ in range(2):
            version = mesh.world.next_version()
            answer = mesh.client.update(Update(base=None, version=version, set_=state))
            assert answer == (200, {"version": version})
        return cpu(mesh.client) - before

    turns = count(1)
    push(2000)
    assert push(2000) < 1


def test_an_endpoint_of_an_unknown_cluster_is_refused(running: Mesh) -> None:
    version = running.client.version
    change: dict[str, dict[str, Endpoint | None]] = {"nobody": {"10.0.0.1:1": None}}
    status, answer = running.client.update(Update(base=version, version=version + 1, endpoints=change))
    assert (status, answer["key"]) == (400, "cluster/nobody")


def test_a_killed_worker_costs_at_most_what_it_had_in_hand(mesh: Mesh) -> None:
    """The next one goes on with the same state, without the control plane."""
    mesh.world.push()
    version, workers = mesh.client.version, mesh.client.workers
    url = f"http://{mesh.web.vip}/echo"
    for pid in workers:
        mesh.client.output("kill", "-9", str(pid))
    wait_until(lambda: bool(mesh.client.workers) and mesh.client.workers != workers, "a new worker")
    assert mesh.client.get(url)["status"] == 200
    assert "error" not in mesh.client.call("tcp_client", "greeting", mesh.web.vip, "25")
    assert mesh.client.version == version


def test_a_full_disk_for_logs_fails_no_request(mesh: Mesh) -> None:
    """Log lines are lost, requests are not; logging goes on when there is room again."""
    mesh.world.push([mesh.server])
    pod = mesh.world.pod("logger", meshed=False)
    pod.meshed = True
    usual, disk = pod.log_path, mesh.world.directory / "disk"
    disk.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        pod.log_path = disk / "log"
        pod.start_sidecar()
        mesh.world.push([pod])
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler", "bs=4k"], check=False, capture_output=True)
        size = pod.log_path.stat().st_size
        answer = pod.call("load", "--http", f"http://{mesh.web.vip}/echo", "--rate", "300", "--seconds", "2")
        assert answer["failed"] == 0, answer
        assert pod.log_path.stat().st_size < size + 8192, "the disk was not full"
        (disk / "filler").unlink()
        grown = pod.log_path.stat().st_size
        wait_until(
            lambda: pod.get(f"http://{mesh.web.vip}/echo")["status"] == 200 and _size(pod) > grown, "logging goes on"
        )
        assert pod.sidecar is not None
        pod.sidecar.kill()
        pod.sidecar.wait()
    finally:
        pod.log_path = usual
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_an_hours_difference_between_clocks_is_refused_until_svids_fit_again(mesh: Mesh) -> None:
    """To a sidecar, a clock that jumped is an SVID that is over or not yet valid: calls fail closed, and recover."""
    mesh.world.push()
    assert mesh.http() == 200
    # The authority itself is an hour old: an SVID that ended then would have been valid for no time at all.
    for valid in ((-3 * HOUR, 60 - HOUR), (HOUR, 2 * HOUR)):
        mesh.server.identity = mesh.world.authority.identity(mesh.server.spiffe_id, valid=valid)
        for pod in (mesh.server, mesh.client):
            # no kept connection: each handshake is judged
            for pid in pod.workers:
                pod.output("kill", "-9", str(pid))
        wait_until(lambda: all(len(pod.workers) == 1 for pod in (mesh.server, mesh.client)), "new workers")
        mesh.world.push()
        assert mesh.http() == 502
    mesh.server.identity = None
    mesh.world.push()
    wait_until(lambda: mesh.http() == 200, "calls work with a valid SVID", 15)


def test_log_level_and_format_change_live(mesh: Mesh) -> None:
    mesh.client.log_level = "error"
    mesh.world.push()
    size = len(mesh.client.log)
    assert mesh.http() == 200
    time.sleep(1.5)
    assert "[info]" not in mesh.client.log[size:]
    mesh.client.log_level = "debug"
    mesh.world.push()
    assert mesh.http() == 200
    wait_until(lambda: "[debug]" in mesh.client.log, "debug lines")
    assert "PRIVATE KEY" not in mesh.client.log


def test_json_access_log_is_json(mesh: Mesh) -> None:
    mesh.client.log_level = "error"
    mesh.world.push()
    assert mesh.client.get(f"http://{mesh.web.vip}/echo", 'User-Agent: "\\x\x7f')["status"] == 200
    wait_until(lambda: '"protocol":"HTTP/1.1"' in mesh.client.log, "an access log line")
    line = next(line for line in mesh.client.log.splitlines() if line.startswith("{"))
    entry = json.loads(line)
    assert entry["upstream_id"] == str(mesh.server.spiffe_id)
    assert entry["status"] == "200"


def test_bodies_over_the_limit_get_413(mesh: Mesh) -> None:
    mesh.server.body_size = 100_000
    mesh.world.push()
    url = f"http://{mesh.web.vip}/upload"
    for size, status in (("100000", 200), ("100001", 413)):
        assert mesh.client.get(url, method="POST", size=size)["status"] == status
    for size, status in (("90000", 200), ("3000000", 413)):
        answer = mesh.client.call("http_client", "upload", url, "--size", size, "--chunked")
        assert answer.get("status", 413) == status, answer


def test_metrics_answer_without_a_certificate(running: Mesh) -> None:
    assert running.http() == 200
    scraper = running.world.pod("scraper", meshed=False)
    text = scraper.output("curl", "-sS", f"http://{running.client.address}:8887/metrics")
    assert "nginxplus_upstream_server_requests{" in text
    assert "nginxplus_http_requests_total" in text


def test_requests_are_counted_under_their_endpoint_also_when_it_leaves_or_the_worker_dies(mesh: Mesh) -> None:
    mesh.world.push()
    client, url = mesh.client, f"http://{mesh.web.vip}"
    ok = 'code="2xx"'
    for _ in range(3):
        assert client.get(f"{url}/echo")["status"] == 200
    assert client.get(f"{url}/status/503")["status"] == 503
    before = series(client, "upstream_server_responses")
    labels = {re.sub(r',?code="..."', "", name) for name in before}
    assert len(labels) == 1
    assert all('dst_pod="server"' in name for name in labels)
    assert [value for name, value in before.items() if ok in name] == [3]
    assert [value for name, value in before.items() if ok not in name] == [1]
    assert list(series(client, "upstream_server_requests").values()) == [4]
    counts = series(client, "upstream_server_response_latency_ms_bucket")
    assert sum(value for name, value in counts.items() if 'le="+Inf"' in name) == 4

    assert client.get(f"{url}/echo")["status"] == 200
    mesh.web.pods.remove(mesh.server)
    mesh.world.push([client])
    time.sleep(1.5)
    for pid in client.workers:
        os.kill(pid, signal.SIGKILL)
    after = series(client, "upstream_server_responses")
    assert after == {name: value + (ok in name) for name, value in before.items()}


def test_requests_by_mtls_are_counted_apart_as_they_went(mesh: Mesh) -> None:
    mesh.world.push()
    url = f"http://{mesh.web.vip}/echo"
    for _ in range(3):
        assert mesh.client.get(url)["status"] == 200
    mesh.server.mode = "off"
    mesh.world.push()
    for _ in range(2):
        assert mesh.client.get(url)["status"] == 200
    assert list(series(mesh.client, "upstream_server_requests").values()) == [5]
    assert list(series(mesh.client, "upstream_server_mtls_requests").values()) == [3]


def series(pod: Pod, family: str) -> dict[str, int]:
    """Series of the sidecar's metrics by name and labels."""
    text = pod.output("curl", "-sS", "--retry", "5", "--retry-connrefused", "http://127.0.0.1:8887/metrics")
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(f"nginxplus_{family}{{")]
    return {name: int(value) for name, value in lines}


def test_the_status_api_is_for_the_pod_alone(running: Mesh) -> None:
    answer = json.loads(running.client.output("curl", "-sS", "http://127.0.0.1:8886/status"))
    assert answer["spiffe_id"] == str(running.client.spiffe_id)
    outside = subprocess.run(
        running.server.command("curl", "-sS", "-m", "3", f"http://{running.client.address}:8886/status"),
        check=False,
        capture_output=True,
        text=True,
    )
    assert "spiffe" not in outside.stdout
