"""Rate limits on real traffic: limit_req's verdicts, one count for all, the right limit for each caller."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec
import pytest

import nginx_mesh.sidecar
from nginx_mesh.protocol.state import Grant, Inbound, Limit, PathRule
from tests.eventually import wait_until

from .world import JSON, Pod, Service, World

pytestmark = pytest.mark.mesh

HTTP, OTHER, GRPC = 8080, 8081, 50051
CONF = (Path(nginx_mesh.sidecar.__file__).parent / "rootfs/etc/nginx-mesh/nginx.conf").read_text()
NEVER = 1  # request in 1000 s: what a burst lets pass is all that passes
NODELAY = -1
SLOW = Limit(name="test/slow", rate=500, burst=50)
STATUS = PathRule(path_regex="^/status")
_names = count()


def limit(burst: int = 0, *, name: str = "", rate: int = NEVER, delay: int = NODELAY, **more: object) -> Limit:
    """A limit of a RateLimit of its own, unless `name` is given: what one test counted is nothing to another."""
    name = name or f"test/limit-{next(_names)}"
    return Limit(name=name, rate=rate, burst=burst, delay=delay, **more)  # type: ignore[arg-type]


@dataclass
class Mesh:
    """A server of HTTP at two ports and of gRPC; a client, its twin with the same identity, one without a sidecar."""

    world: World
    server: Pod
    client: Pod
    twin: Pod
    outsider: Pod
    web: Service
    grpc: Service

    def limits(self, *limits: Limit, port: int = HTTP, grants: list[Grant] | None = None) -> None:
        """The limits and grants at a port from now on."""
        protocol = self.server.ports[port]
        self.server.inbound[port] = Inbound(protocols=[protocol], limits=list(limits), grants=grants)
        self.world.push([self.server])

    def get(self, number: int, path: str = "/echo", *, caller: Pod | None = None, port: int = HTTP) -> list[int]:
        """Statuses of so many requests, one after the other."""
        url = f"http://{self.server.address}:{port}{path}"
        document = (caller or self.client).call("http_client", "request", url, "--count", str(number))
        return [answer["status"] for answer in document["answers"]]

    def counted(self, what: str) -> dict[str, int]:
        """Requests that were limited or delayed, by RateLimit."""
        text = self.server.output("curl", "-sS", "http://127.0.0.1:8887/metrics")
        found = re.findall(rf'nginxplus_rate_{what}_total{{.*ratelimit="([^"]*)"}} (\d+)', text)
        return {name: int(number) for name, number in found}


@pytest.fixture(scope="module")
def shared() -> Iterator[Mesh]:
    with World("permissive") as world:
        server = world.pod("server", {HTTP: "http", OTHER: "http", GRPC: "grpc"})
        client, twin, outsider = world.pod("client"), world.pod("twin"), world.pod("outsider", meshed=False)
        twin.identity = world.authority.identity(client.spiffe_id)
        web = world.service("web", {80: (HTTP, "http")}, [server])
        grpc = world.service("grpc", {80: (GRPC, "grpc")}, [server])
        for port in (HTTP, OTHER):
            server.serve("http_server", "--port", str(port))
        server.serve("grpc_server", "--port", str(GRPC))
        world.push()
        yield Mesh(world, server, client, twin, outsider, web, grpc)


@pytest.fixture
def mesh(shared: Mesh) -> Iterator[Mesh]:
    yield shared
    shared.server.inbound.clear()
    shared.server.mode = None
    shared.world.push([shared.server])


def passing(number: int, refused: int = 1) -> list[int]:
    return [200] * number + [503] * refused


# limit_req beside ours, in one request


@dataclass(frozen=True)
class Zone:
    """A limit_req_zone; `rate` is requests in 1000 s."""

    name: str
    text: str
    rate: int


@dataclass(frozen=True)
class Use:
    """A limit_req; `delay` is None for nodelay."""

    zone: Zone
    burst: int
    delay: int | None

    @property
    def directive(self) -> str:
        burst = f"burst={self.burst}" if self.burst else ""
        delay = "nodelay" if self.delay is None else f"delay={self.delay}" if self.delay else ""
        return f"limit_req zone={self.zone.name} {burst} {delay};"

    @property
    def lua(self) -> str:
        delay = NODELAY if self.delay is None else self.delay
        return f'{{"{self.zone.name}", {self.zone.rate}, {self.burst}, {delay}}}'


ORACLE = """
load_module modules/ndk_http_module.so;
load_module modules/ngx_stream_module.so;
load_module modules/ngx_http_lua_module.so;
load_module modules/ngx_http_mesh_module.so;
worker_processes 1;
daemon off;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 64; }
http {
    lua_package_path "/usr/lib/nginx-mesh/lua/?.lua;;";
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    access_log off;
    keepalive_requests 10000000;
    limit_req_dry_run on;
    %(zones)s
    init_worker_by_lua_block {
        require "mesh.cdefs"
        local ffi = require "ffi"
        ffi.cdef [[
            typedef struct { size_t len; const char *data; } oracle_str_t;
            intptr_t ngx_mesh_policy_wait(ngx_mesh_policy_t *policy, const oracle_str_t *id, ngx_http_request_t *r,
                oracle_str_t *by);
        ]]
        local by, nobody = ffi.new "oracle_str_t", ffi.new "oracle_str_t"
        local get_request = require("resty.core.base").get_request

        function oracle(limits)
            local policy = ffi.C.ngx_mesh_ffi_policy_new(0)
            for _, l in ipairs(limits) do
                local limit = ffi.C.ngx_mesh_ffi_policy_limit(policy, l[1], #l[1], #l[1], l[2], l[3], l[4])
                assert(ffi.C.ngx_mesh_ffi_policy_limit_others(policy, limit) == 0)
            end
            return function()
                local wait = tonumber(ffi.C.ngx_mesh_policy_wait(policy, nobody, get_request(), by))
                local name = by.len > 0 and ffi.string(by.data, by.len) or "-"
                ngx.print(ngx.var.limit_req_status, " ", wait, " ", name, "\\n")
            end
        end

        verdicts = { %(policies)s }
    }
    server {
        listen unix:/run/nginx-mesh/control.sock;
        %(locations)s
    }
}
"""


def _oracle_conf(chance: random.Random) -> tuple[str, list[list[Use]]]:
    zones = []
    for number in range(24):
        per, most = chance.choice([("s", 2000), ("s", 50), ("m", 6000)])
        rate = chance.randint(1, most)
        zones.append(Zone(f"z{number}", f"{rate}r/{per}", rate * 1000 // (60 if per == "m" else 1)))
    places = []
    for number in range(36):
        chosen = [zones[number]] if number < len(zones) else chance.sample(zones, chance.choice([2, 2, 3]))
        bursts = [chance.choice([0, 1, *(chance.randint(2, 40) for _ in range(3))]) for _ in chosen]
        delays = [chance.choice([None, 0, 0, chance.randint(1, 45)]) for _ in chosen]
        places.append([Use(*parts) for parts in zip(chosen, bursts, delays, strict=True)])
    conf = ORACLE % {
        "zones": "\n".join(f"limit_req_zone all zone={zone.name}:32k rate={zone.text};" for zone in zones),
        "policies": ", ".join(f"oracle{{{', '.join(use.lua for use in uses)}}}" for uses in places),
        "locations": "\n".join(
            f"location = /{number} {{ {' '.join(use.directive for use in uses)} "
            f"content_by_lua_block {{ verdicts[{number + 1}]() }} }}"
            for number, uses in enumerate(places)
        ),
    }
    return conf, places


def _ask(peer: socket.socket, places: Sequence[int], first: int) -> list[list[str]]:
    """Requests in one write, and the verdicts: limit_req's, our milliseconds, our limit."""
    heads = (f"GET /{place}?{number} HTTP/1.1\r\nHost: x\r\n\r\n" for number, place in enumerate(places, start=first))
    peer.sendall("".join(heads).encode())
    received = b""
    while received.count(b"\r\n0\r\n\r\n") < len(places):
        piece = peer.recv(65536)
        assert piece, received[-1000:]
        received += piece
    return [line.split() for line in re.findall(r"^((?:PASSED|DELAYED|REJECTED).*)$", received.decode(), re.M)]


def test_every_verdict_and_every_delay_is_that_of_limit_req() -> None:
    """nginx's own limit_req in dry run and our limits are asked in one request, hence at one time of one clock."""
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    conf, places = _oracle_conf(chance)
    asked: list[int] = []
    verdicts: list[list[str]] = []
    with World() as world:
        pod = world.pod("oracle", conf=conf)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(pod.socket_dir / "control.sock"))
            peer.settimeout(30)
            for _ in range(500):
                near = chance.choices(range(len(places)), k=chance.randint(1, 3))
                batch = chance.choices(near, k=chance.choice([1, 2, 3, 5, 8, chance.randint(10, 60)]))
                verdicts += _ask(peer, batch, len(asked))
                asked += batch
                time.sleep(chance.choice([0, 0, 0, 0.001, 0.003, chance.random() / 30, chance.random() / 10]))
        log = pod.log
    found = re.findall(
        r'(delaying|limiting) requests?, dry run, excess: ([0-9.]+),? by zone "(\w+)".*GET /\d+\?(\d+) ', log
    )
    said = {int(number): (what, int(excess.replace(".", "")), zone) for what, excess, zone, number in found}
    assert len(verdicts) == len(asked)
    seen = Counter(verdict[0] for verdict in verdicts)
    assert min(seen[status] for status in ("PASSED", "DELAYED_DRY_RUN", "REJECTED_DRY_RUN")) > 30, (
        f"seed {seed}: {seen}"
    )
    for number, (place, (status, ours, by)) in enumerate(zip(asked, verdicts, strict=True)):
        uses = {use.zone.name: use for use in places[place]}
        about = f"seed {seed}, request {number}, {list(uses.values())}: {said.get(number)}"
        if status == "PASSED":
            assert ours == "0", about
        elif status == "DELAYED_DRY_RUN":
            _, excess, zone = said[number]
            use = uses[zone]
            assert int(ours) == (excess - 1000 * (use.delay or 0)) * 1000 // use.zone.rate, about
        else:
            assert (int(ours) < 0, by) == (True, said[number][2]), about


# one count


def test_all_workers_count_together_and_a_killed_one_takes_no_count_with_it() -> None:
    with World("off") as world:
        server = world.pod("server", {HTTP: "http"}, conf=CONF.replace("worker_processes 1;", "worker_processes 2;"))
        outsider = world.pod("outsider", meshed=False)
        server.serve("http_server", "--port", str(HTTP))
        server.inbound[HTTP] = Inbound(protocols=["http"], limits=[limit(6)])
        world.push()
        one, other = server.workers

        def get(number: int, stopped: int = 0) -> list[int]:
            """Requests on connections of their own, while one of the workers is stopped."""
            if stopped:
                os.kill(stopped, signal.SIGSTOP)
            try:
                url = f"http://{server.address}:{HTTP}/echo"
                return [int(outsider.get(url, timeout="5").get("status", 0)) for _ in range(number)]
            finally:
                if stopped:
                    os.kill(stopped, signal.SIGCONT)

        assert get(2, stopped=one) == passing(2, 0)
        assert get(2, stopped=other) == passing(2, 0)
        for pid in (one, other):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(server.workers) == 2 and not {one, other} & set(server.workers), "new workers")
        assert get(5) == passing(3, 2)


def test_a_changed_policy_and_another_port_go_on_with_the_count(mesh: Mesh) -> None:
    name = "test/changing"
    mesh.limits(limit(3, name=name), port=OTHER)
    mesh.limits(limit(3, name=name))
    assert mesh.get(2) == passing(2, 0)
    assert mesh.get(1, port=OTHER) == passing(1, 0)
    mesh.limits()
    assert mesh.get(2) == passing(2, 0)
    mesh.limits(limit(4, name=name, rate=2))
    assert mesh.get(3) == passing(2)
    mesh.limits(limit(4, name=name, rate=10**9))
    time.sleep(0.05)
    assert mesh.get(2) == passing(2, 0)


def test_a_request_counts_for_all_of_its_limits_or_for_none(mesh: Mesh) -> None:
    everything, status = limit(2), limit(0, matches=[STATUS])
    mesh.limits(everything, status)
    before = mesh.counted("limited")
    assert mesh.get(4, "/status/200") == passing(1, 3)
    assert mesh.get(3) == passing(2, 1)
    after = mesh.counted("limited")
    assert (after[everything.name], after[status.name]) == (1, 3)
    assert before.items() <= after.items()


def test_requests_beyond_the_memory_for_counting_are_refused_and_those_within_are_not(mesh: Mesh) -> None:
    """As limit_req: what was asked longest ago makes room, but nothing passes uncounted."""
    prefix = "test/" + "x" * 900
    mesh.limits(*(limit(10**6, name=f"{prefix}/{number}") for number in range(2000)))
    assert mesh.get(2) == [503, 503]
    assert "no memory to count the rate limit" in mesh.server.log
    time.sleep(0.05)
    mesh.limits(limit(1))
    assert mesh.get(3) == passing(2)


# whose limit it is


def test_sources_of_one_account_are_told_apart_by_their_addresses(mesh: Mesh) -> None:
    ids = [str(mesh.client.spiffe_id)]
    one = limit(1, name="test/sources/Deployment/test/one", sources=ids, addresses=["10.0.0.1", mesh.client.address])
    two = limit(3, name="test/sources/Deployment/test/two", sources=ids, addresses=[mesh.twin.address, "fd00::1"])
    mesh.limits(one, two)
    assert mesh.get(5) == passing(2, 3)
    assert mesh.get(5, caller=mesh.twin) == passing(4)
    assert mesh.counted("limited")["test/sources"] == 4, "the metric is the RateLimit's, not the source's"


def test_a_caller_with_the_account_of_a_source_at_no_address_of_it_is_among_all_others(mesh: Mesh) -> None:
    """It shares the account, or is new; from when its address is known it is that source."""
    ids = [str(mesh.client.spiffe_id)]
    source, others = limit(1, sources=ids, addresses=["10.0.0.1"]), limit(3)
    mesh.limits(source)
    assert mesh.get(5) == passing(5, 0)
    mesh.limits(source, others)
    assert mesh.get(5) == passing(4)
    mesh.limits(msgspec.structs.replace(source, addresses=["10.0.0.1", mesh.client.address]), others)
    assert mesh.get(3) == passing(2)


def test_a_source_of_one_policy_is_none_of_another_that_only_shares_its_account(mesh: Mesh) -> None:
    ids = [str(mesh.client.spiffe_id)]
    mesh.limits(
        limit(1, name=f"test/p{next(_names)}/Pod/test/twin", sources=ids, addresses=[mesh.twin.address]),
        limit(3, name=f"test/p{next(_names)}/Pod/test/client", sources=ids, addresses=[mesh.client.address]),
    )
    assert mesh.get(5) == passing(4)
    assert mesh.get(3, caller=mesh.twin) == passing(2)


def test_what_is_proved_counts_and_not_the_address_alone(mesh: Mesh) -> None:
    somebody = limit(0, sources=["spiffe://example.org/ns/test/sa/x"], addresses=[mesh.client.address])
    mesh.limits(somebody, limit(2))
    assert mesh.get(4) == passing(3)


def test_a_policy_without_sources_is_for_callers_that_no_policy_names(mesh: Mesh) -> None:
    """Callers without a sidecar among them, whatever their address; and those named are not counted there."""
    named = limit(5, sources=[str(mesh.client.spiffe_id)], addresses=[mesh.client.address, mesh.outsider.address])
    mesh.limits(named, limit(1))
    assert mesh.get(6) == passing(6, 0)
    assert mesh.get(3, caller=mesh.outsider) == passing(2)


def test_a_caller_that_is_named_for_other_requests_only_is_not_among_all_others(mesh: Mesh) -> None:
    named = limit(0, sources=[str(mesh.client.spiffe_id)], addresses=[mesh.client.address], matches=[STATUS])
    mesh.limits(named, limit(0))
    assert mesh.get(3) == passing(3, 0)
    assert mesh.get(2, "/status/200") == passing(1)


# waiting


def _meanwhile(mesh: Mesh, caller: Pod, change: Callable[[], None], *, grants: list[Grant] | None = None) -> int:
    """The status of a request that has to wait for 2 s, during which something changes."""
    mesh.limits(SLOW, grants=grants)
    with ThreadPoolExecutor() as pool:
        delayed = mesh.counted("delayed").get(SLOW.name, 0)
        answers = pool.submit(mesh.get, 2, caller=caller)
        wait_until(lambda: mesh.counted("delayed").get(SLOW.name, 0) > delayed, "a request waits")
        change()
        return answers.result()[-1]


def test_a_right_that_is_withdrawn_while_a_request_waits_is_gone(mesh: Mesh) -> None:
    grant = Grant(target="test/t", sources=[str(mesh.client.spiffe_id)])
    assert _meanwhile(mesh, mesh.client, lambda: mesh.limits(SLOW, grants=[]), grants=[grant]) == 403


def test_a_plaintext_request_that_waits_while_the_mode_becomes_strict_is_refused(mesh: Mesh) -> None:
    def become_strict() -> None:
        mesh.server.mode = "strict"
        mesh.world.push([mesh.server])

    assert _meanwhile(mesh, mesh.outsider, become_strict) == 400


def test_a_request_that_waits_while_its_limit_is_taken_away_passes_after_its_wait(mesh: Mesh) -> None:
    assert _meanwhile(mesh, mesh.client, mesh.limits) == 200


# protocols


@pytest.mark.parametrize(("flag", "version"), [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")])
def test_http_1_and_http_2_get_503_with_words(mesh: Mesh, flag: str, version: str) -> None:
    for caller in (mesh.client, mesh.outsider):
        mesh.limits(limit(1))
        url = f"http://{mesh.server.address}:{HTTP}/echo"
        answers = [caller.output("curl", "-sS", flag, "-w", "\n%{http_code} %{http_version}", url) for _ in range(3)]
        assert [answer.splitlines()[-1] for answer in answers] == [f"{status} {version}" for status in passing(2)]
        assert answers[-1].startswith("nginx-mesh: rate limit exceeded")


def test_grpc_gets_resource_exhausted_or_waits(mesh: Mesh) -> None:
    def calls(number: int, caller: Pod) -> JSON:
        return caller.call("grpc_client", "unary", f"{mesh.server.address}:{GRPC}", "--count", str(number))

    for caller in (mesh.client, mesh.outsider):
        mesh.limits(limit(1), port=GRPC)
        assert "error" not in calls(2, caller)
        assert calls(1, caller)["code"] == "RESOURCE_EXHAUSTED"
        mesh.limits(limit(9, rate=10_000, delay=0), port=GRPC)
        started = time.monotonic()
        assert "error" not in calls(4, caller)
        assert time.monotonic() - started > 0.3


def test_delays_and_refusals_are_counted_by_policy(mesh: Mesh) -> None:
    mine = limit(2, rate=1000, delay=1)
    mesh.limits(mine)
    url = f"http://{mesh.server.address}:{HTTP}/echo"
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: mesh.outsider.output("curl", "-w", "%{http_code}", url)[-3:], range(12)))
    assert statuses["503"] > 0
    assert mesh.counted("limited")[mine.name] == statuses["503"]
    assert 1 <= mesh.counted("delayed")[mine.name] <= statuses["200"] - 2
