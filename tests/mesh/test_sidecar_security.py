"""What a hostile caller, endpoint or application cannot do to a sidecar, nor past it."""

from __future__ import annotations

import datetime
import ipaddress
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from nginx_mesh.api.spiffe import workload_id
from nginx_mesh.identity.common.keys import generate_key, to_pem
from nginx_mesh.identity.common.x509svid import certificate_pem
from nginx_mesh.protocol.state import (
    Cluster,
    Endpoint,
    Entry,
    Grant,
    Identity,
    Inbound,
    Limit,
    PathRule,
    Probe,
    Update,
)
from tests.eventually import wait_until

from .world import TRUST_DOMAIN, Authority, ControlConnection, Pod, Service, World, cpu

pytestmark = pytest.mark.mesh

SOMEBODY = workload_id(TRUST_DOMAIN, "test", "somebody")
IDENTITY_HEADER = "x-forwarded-client-spiffe-id"


class Mesh:
    """A client, a server of HTTP (8080) and TCP (2525), and a caller outside the mesh."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = world.pod("server", {8080: "http", 2525: "tcp", 2527: "tcp"})
        self.client = world.pod("client")
        self.outsider = world.pod("outsider", meshed=False)
        self.web: Service = world.service("web", {80: (8080, "http"), 25: (2525, "tcp")}, [self.server])
        self.server.serve("http_server", "--port", "8080")
        self.server.serve("tcp_server", "--mode", "greeting", "--port", "2525")
        self.server.serve("tcp_server", "--mode", "count", "--port", "2527")

    @property
    def url(self) -> str:
        return f"http://{self.web.vip}"

    def http(self, path: str = "/echo") -> int:
        """Status of a call of the client's, 0 when the connection was cut."""
        return int(self.client.get(f"{self.url}{path}", timeout="5").get("status", 0))

    def tcp(self) -> bool:
        return "error" not in self.client.call("tcp_client", "greeting", self.web.vip, "25", "--timeout", "3")

    def intrude(self, identity: Identity, port: int, *arguments: str) -> str:
        """What the server's sidecar first answers to the outsider, who presents `identity`."""
        path = self.world.directory / f"{time.monotonic_ns()}.pem"
        path.write_text(identity.svid + identity.key)
        answer = self.outsider.call("tls_client", self.server.address, str(port), "--cert", str(path), *arguments)
        return str(answer.get("answer", ""))


@pytest.fixture(scope="module")
def shared() -> Iterator[Mesh]:
    with World() as world:
        mesh = Mesh(world)
        world.push()
        yield mesh


@pytest.fixture
def mesh(shared: Mesh) -> Mesh:
    """As if new: permissive, without rules, everybody who they are."""
    shared.world.mode = "permissive"
    shared.server.inbound, shared.server.expected_id = {}, ""
    shared.server.identity = shared.client.identity = None
    shared.world.push()
    return shared


def update(pod: Pod, entries: Mapping[str, Entry]) -> tuple[int, dict[str, object]]:
    return pod.update(Update(base=pod.version, version=pod.version + 1, set_=entries))  # type: ignore[arg-type]


# identities


@pytest.mark.parametrize(
    "header",
    ["X_Forwarded_Client_Spiffe_Id", "x-forwarded_client-Spiffe_id", "X.Forwarded.Client.Spiffe.Id"],
)
def test_no_spelling_of_the_identity_header_gets_through(mesh: Mesh, header: str) -> None:
    """Applications fold "-" and "_" (CGI, WSGI, PHP): whoever sends "_" would be who they say."""
    for caller, url, proved in (
        (mesh.client, mesh.url, [str(mesh.client.spiffe_id)]),
        (mesh.outsider, f"http://{mesh.server.address}:8080", []),
    ):
        answer = caller.get(f"{url}/echo", f"{header}: spiffe://example.org/ns/test/sa/admin", "X_Other_Client_Id: 1")
        seen = {name.lower(): value for name, value in answer["body"]["headers"]}
        assert seen.pop("x_other_client_id") == "1"
        claims = [value for name, value in seen.items() if "spiffe" in name]
        assert claims == proved


def test_a_kept_connection_serves_no_other_expected_identity(mesh: Mesh) -> None:
    """An address may pass to another workload while connections to it are kept."""
    assert mesh.http() == 200
    mesh.server.expected_id = str(SOMEBODY)
    mesh.world.push([mesh.client])
    assert mesh.http() == 502


def test_a_kept_connection_serves_no_request_after_its_authority_is_distrusted(mesh: Mesh) -> None:
    assert mesh.http() == 200
    mesh.client.identity = Authority().identity(mesh.client.spiffe_id)
    mesh.world.push([mesh.client])
    assert mesh.http() == 502


def test_an_identity_of_another_trust_domain_is_none(mesh: Mesh) -> None:
    """An upstream authority may sign for several trust domains; its root vouches for ours alone."""
    authority = mesh.world.authority
    foreign = _leaf(authority, "spiffe://example.com/ns/test/sa/client", authority_bits=False)
    assert mesh.intrude(foreign, 8080).startswith("HTTP/1.1 400")
    good = _leaf(authority, str(SOMEBODY), authority_bits=False)
    assert mesh.intrude(good, 8080).startswith("HTTP/1.1 200")


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/a/", "/a//b", "//a", "/.", "/a/../b", "/a%2f", "/a?b", "/a#b", "/a b", "/\u00e4", "/a\x00b"),
        *("/a\x7f", '/a"b', "/a\r\nX-Admin: yes", "/a\nb", "/" + "a" * 2048),
    ],
)
def test_what_is_no_spiffe_id_is_no_identity(shared: Mesh, path: str) -> None:
    """An authority that is astray, of a federated trust domain perhaps, must not write our headers and logs."""
    authority = shared.world.authority
    bad = _leaf(authority, f"spiffe://example.org{path}", authority_bits=False)
    assert shared.intrude(bad, 8080).startswith("HTTP/1.1 400")
    assert "X-Admin" not in shared.server.log


@pytest.mark.parametrize("trust_domain", ["", "Example.org", "example.org:80", "user@example.org", "example.org\r\n"])
def test_what_is_no_trust_domain_is_none(shared: Mesh, trust_domain: str) -> None:
    bad = _leaf(shared.world.authority, f"spiffe://{trust_domain}/ns/test/sa/client", authority_bits=False)
    assert shared.intrude(bad, 8080).startswith("HTTP/1.1 400")


def test_a_certificate_that_may_sign_is_no_identity(mesh: Mesh) -> None:
    """A delegated authority must not act as the workload that its name says."""
    delegated = _leaf(mesh.world.authority, str(SOMEBODY), authority_bits=True)
    assert mesh.intrude(delegated, 8080).startswith("HTTP/1.1 400")


def test_a_sidecar_that_is_told_to_be_nobody_is_nobody(mesh: Mesh) -> None:
    """What the control plane takes away is gone at once, also from kept connections."""
    assert mesh.http() == 200
    before = mesh.client.version
    assert mesh.client.update(Update(base=before, version=before + 1, delete=["identity"]))[0] == 200
    assert mesh.http() >= 500
    assert not mesh.tcp()
    status, answer = mesh.client.update(Update(base=before + 1, version=before + 2, delete=["settings"]))
    assert (status, answer["key"]) == (400, "settings")


def _uri(name: str) -> bytes:
    """A subjectAltName of one URI, in DER, whatever is in it."""

    def tagged(tag: int, content: bytes) -> bytes:
        length = len(content)
        if length < 128:
            return bytes((tag, length)) + content
        return bytes((tag, 0x82, length >> 8, length & 255)) + content

    return tagged(0x30, tagged(0x86, name.encode("latin-1")))


def _leaf(authority: Authority, spiffe_id: str, *, authority_bits: bool) -> Identity:
    """What our issuer would never sign."""
    key = generate_key("ec-p256")
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority_bits, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=authority_bits,
                crl_sign=authority_bits,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
        .add_extension(x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, _uri(spiffe_id)), critical=False)
        .sign(authority.signer.key, SHA256())
    )
    return Identity(spiffe_id=spiffe_id, svid=certificate_pem(certificate), key=to_pem(key), bundle=authority.bundle)


# what rules say


def test_no_upgrade_to_http2_hides_requests_from_the_rules(mesh: Mesh) -> None:
    """Requests inside an upgraded connection are seen by nobody; WebSocket is what goes through."""
    for offer in ("h2c", "websocket, H2C", "HTTP/2.0"):
        answer = mesh.client.get(
            f"{mesh.url}/echo", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {offer}", "HTTP2-Settings: AAMAAABk"
        )
        names = {name.lower() for name, _ in answer["body"]["headers"]}
        assert "upgrade" not in names


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/echo", True),
        ("/echo?to=../x%2f..;/", True),
        ("/echo/.hidden/%20a..b", True),
        ("/status/200", False),
        ("/status/../echo", False),
        ("/status/..%2fecho", False),
        ("/status/%2E%2e/echo", False),
        ("/echo/..;/status/200", False),
        ("/echo/..;x=1/status/200", False),
        ("/echo/%2e%2e;/status/200", False),
        ("/echo\\..\\status", False),
        ("/echo/..%5cstatus", False),
        ("/echo/..", False),
    ],
)
def test_a_path_that_applications_may_take_for_another_is_granted_to_nobody(
    mesh: Mesh, path: str, allowed: bool
) -> None:
    grant = Grant(target="x", sources=[str(mesh.client.spiffe_id)], matches=[PathRule(path_regex="^/echo")])
    mesh.server.inbound[8080] = Inbound(protocols=["http"], grants=[grant])
    mesh.world.push([mesh.server])
    assert (mesh.http(path) != 403) == allowed


def test_a_pattern_that_backtracks_without_end_is_cut_short(mesh: Mesh) -> None:
    grant = Grant(target="x", sources=[str(mesh.client.spiffe_id)], matches=[PathRule(path_regex="^/((a|b|ab)*)*c$")])
    mesh.server.inbound[8080] = Inbound(protocols=["http"], grants=[grant])
    mesh.world.push([mesh.server])
    assert mesh.http("/abc") == 404
    before = cpu(mesh.server)
    assert mesh.client.get(f"{mesh.url}/{'ab' * 500}cd", count="50")["status"] == 403
    assert cpu(mesh.server) - before < 0.3


def test_a_request_that_a_limits_pattern_takes_too_long_for_counts(mesh: Mesh) -> None:
    rule = PathRule(path_regex="^/((a|b|ab)*)*c$")
    mesh.server.inbound[8080] = Inbound(protocols=["http"], limits=[Limit(name="x", rate=1, delay=-1, matches=[rule])])
    mesh.world.push([mesh.server])
    assert [mesh.http(f"/{'ab' * 500}cd") for _ in range(2)] == [404, 503]
    assert mesh.http("/other") == 404


@pytest.mark.parametrize(
    ("rule", "asked", "status"),
    [
        (PathRule(methods=["GET"]), {}, 200),
        (PathRule(methods=["*"]), {}, 200),
        (PathRule(methods=["POST", "PUT"]), {}, 403),
        (PathRule(headers={"x-team": "^blue$"}), {}, 403),
        (PathRule(headers={"x-team": "^blue$"}), {"X-Team": "red"}, 403),
        (PathRule(headers={"x-team": "^blue$"}), {"X-Team": "blue"}, 200),
        (PathRule(headers={"x-team": "^blue$", "x-role": "."}), {"X-Team": "blue"}, 403),
        (PathRule(path_regex="^/echo$", methods=["GET"], headers={"x-team": "lu"}), {"X-Team": "blue"}, 200),
        (PathRule(path_regex="^/ech[", methods=["GET"]), {}, 403),
    ],
    ids=str,
)
def test_all_parts_of_a_match_must_hold(mesh: Mesh, rule: PathRule, asked: dict[str, str], status: int) -> None:
    grant = Grant(target="x", sources=[str(mesh.client.spiffe_id)], matches=[rule])
    mesh.server.inbound[8080] = Inbound(protocols=["http"], grants=[grant])
    mesh.world.push([mesh.server])
    headers = [f"{name}: {value}" for name, value in asked.items()]
    assert mesh.client.get(f"{mesh.url}/echo", *headers)["status"] == status


def test_rate_limits_count_each_caller_by_the_limit_that_names_it(mesh: Mesh) -> None:
    slow = 1  # request in 1000 s
    here = [mesh.client.address]
    mine = Limit(name="mine", rate=slow, burst=3, delay=-1, sources=[str(mesh.client.spiffe_id)], addresses=here)
    others = Limit(name="others", rate=slow, burst=0)
    elsewhere = Limit(name="elsewhere", rate=slow, matches=[PathRule(path_regex="^/status")])
    mesh.server.inbound[8080] = Inbound(protocols=["http"], limits=[mine, others, elsewhere])
    mesh.world.push([mesh.server])
    assert statuses(mesh, 6) == [200] * 4 + [503] * 2
    mesh.server.inbound[8080] = Inbound(protocols=["http"], limits=[others])
    mesh.world.push([mesh.server])
    assert statuses(mesh, 2) == [200, 503]


def test_a_limited_burst_is_delayed(mesh: Mesh) -> None:
    limit = Limit(name="delayed", rate=10_000, burst=5)
    mesh.server.inbound[8080] = Inbound(protocols=["http"], limits=[limit])
    mesh.world.push([mesh.server])
    started = time.monotonic()
    assert statuses(mesh, 4) == [200] * 4
    assert time.monotonic() - started > 0.25


def statuses(mesh: Mesh, count: int) -> list[int]:
    """Of requests of the client's, one after the other."""
    document = mesh.client.call("http_client", "request", f"{mesh.url}/echo", "--count", str(count))
    return [answer["status"] for answer in document["answers"]]


def test_a_header_sent_very_often_takes_no_more_memory_than_its_bytes(mesh: Mesh) -> None:
    limit = Limit(name="often", rate=10**9, matches=[PathRule(headers={"a": f"no{n}"}) for n in range(20)])
    mesh.server.inbound[8080] = Inbound(protocols=["http"], limits=[limit])
    mesh.world.push([mesh.server])
    request = mesh.world.directory / "often"
    request.write_text("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + f"a:{'1' * 250}\r\n" * 900 + "\r\n")
    before = _peak_memory(mesh.server)
    identity = mesh.world.authority.identity(mesh.client.spiffe_id)
    assert mesh.intrude(identity, 8080, "--send-file", str(request)).startswith("HTTP/1.1 200")
    assert _peak_memory(mesh.server) - before < 64 << 20


def _peak_memory(pod: Pod) -> int:
    """The most that the pod's nginx workers ever had, bytes."""
    lines = [line for pid in pod.workers for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


# TLS in pieces


@pytest.mark.parametrize("how", ["--slowly", "--freeze"])
def test_requests_arrive_whatever_pieces_their_tls_comes_in(mesh: Mesh, how: str) -> None:
    arguments = [how] if how == "--slowly" else [how, str(mesh.server.workers[0])]
    identity = mesh.world.authority.identity(mesh.client.spiffe_id)
    assert mesh.intrude(identity, 8080, *arguments).startswith("HTTP/1.1 200")


@pytest.mark.parametrize("end", ["politely", "rudely"])
@pytest.mark.parametrize("how", ["--slowly", "--freeze"])
def test_what_comes_before_the_end_of_a_tls_stream_is_not_lost(mesh: Mesh, how: str, end: str) -> None:
    arguments = [how] if how == "--slowly" else [how, str(mesh.server.workers[0])]
    arguments += ["--alpn", "nginx-mesh-tcp", f"--half-close={end}", "--send", "x" * 500, "--record", "100"]
    identity = mesh.world.authority.identity(mesh.client.spiffe_id)
    assert json.loads(mesh.intrude(identity, 2527, *arguments))["bytes"] == 500


def test_no_part_of_a_request_is_left_in_the_socket(mesh: Mesh) -> None:
    """Around the length at which nginx took as much from OpenSSL as it saw in the socket, and some is there still."""
    identity = mesh.world.authority.identity(mesh.client.spiffe_id)
    worker = str(mesh.server.workers[0])
    for length in range(32_930, 32_942):
        request = (
            f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n" + "x" * length
        )
        answer = mesh.intrude(identity, 8080, "--second", "--freeze", worker, "--record", "9000", "--send", request)
        assert answer.startswith("HTTP/1.1 200"), length


def test_grants_hold_for_tcp(mesh: Mesh) -> None:
    for sources, works in (([SOMEBODY], False), ([SOMEBODY, mesh.client.spiffe_id], True), ([], False)):
        grants = [Grant(target="x", sources=[str(source) for source in sources])] if sources else []
        mesh.server.inbound[2525] = Inbound(protocols=["tcp"], grants=grants)
        mesh.world.push([mesh.server])
        assert mesh.tcp() == works, sources
        answer = mesh.outsider.call("tcp_client", "greeting", mesh.server.address, "2525", "--timeout", "3")
        assert "error" in answer, "a plaintext caller is nobody"
    mesh.server.inbound = {}
    mesh.world.push([mesh.server])
    assert mesh.tcp()


def test_a_grant_of_requests_is_no_grant_of_raw_connections(mesh: Mesh) -> None:
    """On a port of both protocols the caller's sidecar says which; saying TCP must not evade rules about paths."""
    identity = mesh.world.authority.identity(mesh.client.spiffe_id)
    rule = Grant(target="x", sources=[identity.spiffe_id], matches=[PathRule(path_regex="^/nothing$")])
    mesh.server.inbound[8080] = Inbound(protocols=["http", "tcp"], grants=[rule])
    mesh.world.push([mesh.server])
    assert mesh.intrude(identity, 8080).startswith("HTTP/1.1 403")
    assert "200" not in mesh.intrude(identity, 8080, "--alpn", "nginx-mesh-tcp")


# ways around


def _link_local(pod: Pod) -> str:
    """The address that a pod's interface gave itself; empty before it may be used."""
    for line in pod.output("cat", "/proc/net/if_inet6").splitlines():
        address, _, _, scope, flags, device = line.split()
        if (device, scope) == ("eth0", "20") and not int(flags, 16) & 0x40:
            return str(ipaddress.IPv6Address(bytes.fromhex(address)))
    return ""


def test_link_local_addresses_are_no_way_out_of_strict(mesh: Mesh) -> None:
    mesh.outsider.serve("tcp_server", "--mode", "greeting", "--port", "2525")
    wait_until(lambda: all(_link_local(pod) for pod in (mesh.outsider, mesh.client)), "link-local addresses")
    address = _link_local(mesh.outsider)
    mesh.world.mode = "strict"
    mesh.world.push()
    answer = mesh.client.call("tcp_client", "greeting", f"{address}%eth0", "2525", "--timeout", "3")
    assert "error" in answer, answer


def test_whoever_asks_for_a_health_check_gets_the_health_check(mesh: Mesh) -> None:
    """The probe ports take everybody: nothing of the caller's reaches the application."""
    probe = Probe(scheme="http", port=8080, path="/echo", headers={"X-Probe": "1"}, host="inside")
    assert update(mesh.server, {"probe//health-redirects/live": probe})[0] == 200
    url = f"http://{mesh.server.address}:8895/health-redirects/live"
    answer = mesh.outsider.get(
        url,
        f"{IDENTITY_HEADER}: {SOMEBODY}",
        "X_Forwarded_Client_Spiffe_Id: x",
        "Cookie: a",
        "User-Agent: kube",
        size="9",
    )
    seen = {name.lower(): value for name, value in answer["body"]["headers"]}
    seen.pop("connection", None)
    assert seen == {"x-probe": "1", "host": "inside", "user-agent": "kube"}
    assert answer["body"]["size"] == 0
    assert mesh.outsider.get(url, method="POST", size="9")["status"] == 405


def test_redirect_takes_lists_of_ports_and_nothing_else(mesh: Mesh) -> None:
    command = mesh.server.command("chroot", str(mesh.world.image), "/usr/lib/nginx-mesh/redirect")
    for bad in ("80\n443", "0", "0100", "65536", "123456", "80,,443", ",80", "a", "80;flush ruleset", "-1", "*"):
        for option in ("--ignore-incoming-ports", "--ignore-outgoing-ports"):
            done = subprocess.run([*command, f"{option}={bad}"], check=False, capture_output=True, text=True)
            assert (done.returncode, bad in done.stderr) == (2, True), (bad, done)
    assert mesh.http() == 200


# exhaustion


def test_silent_connections_make_room_for_others(mesh: Mesh) -> None:
    """Anybody can connect; who says nothing must not keep out who does."""
    script = (
        "import resource,socket,sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (10000, 10000))\n"
        "kept = []\n"
        "for i in range(5000):\n"
        f"  s = socket.create_connection(('{mesh.server.address}', 8080 if i % 2 else 2525), 5)\n"
        "  s.sendall(b'\\x16' if i % 3 else b'')\n"
        "  kept.append(s)\n"
        "print('full', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    # Without mTLS a silent caller of TCP is soon let through to the application, which then has to cope.
    mesh.world.mode = "strict"
    mesh.world.push()
    argv = mesh.outsider.command("python3", "-c", script)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        assert mesh.http() == 200
        assert mesh.tcp()
        process.kill()


def test_a_graceful_end_waits_for_nobody_who_is_silent() -> None:
    with World("strict") as world:
        server = world.pod("server", {2525: "tcp"})
        outsider = world.pod("outsider", meshed=False)
        world.push()
        connect = f"s = socket.create_connection(('{server.address}', 2525))"
        script = f"import socket; {connect}; print(1, flush=True); s.recv(1)"
        process = subprocess.Popen(outsider.command("python3", "-c", script), stdout=subprocess.PIPE, text=True)
        world.processes.append(process)
        assert process.stdout is not None and server.sidecar is not None
        assert process.stdout.readline() == "1\n"
        time.sleep(0.2)
        server.sidecar.send_signal(signal.SIGQUIT)
        server.sidecar.wait(5)
        process.wait(5)


def test_statuses_that_nobody_knows_make_no_series(mesh: Mesh) -> None:
    for code in (299, 499, 404):
        assert mesh.http(f"/status/{code}") == code

    def series() -> str:
        return mesh.outsider.output("curl", "-sS", f"http://{mesh.client.address}:8887/metrics")

    wait_until(lambda: 'code="404"' in series(), "the calls are counted")
    text = series()
    assert 'code="499"' in text
    assert 'code="299"' not in text


def test_a_state_that_does_not_fit_changes_nothing(mesh: Mesh) -> None:
    """Neither what it would replace nor what it would push out of memory is lost."""
    before = mesh.client.version
    entries: dict[str, Entry] = {
        f"cluster/big-{i}": Cluster(
            lb_method="random",
            endpoints={"10.0.0.1:1": Endpoint(tls=False, labels={"x": "y" * 1_000_000})},
        )
        for i in range(40)
    }
    for key in ("settings", "identity", *(key for key in mesh.client.state() if key.startswith("cluster/"))):
        entries[key] = mesh.client.state()[key]
    status, answer = update(mesh.client, entries)
    assert status == 507, answer
    assert mesh.client.version == before
    assert mesh.http() == 200
    old = mesh.client.workers
    for pid in old:
        mesh.client.output("kill", "-9", str(pid))
    wait_until(lambda: bool(mesh.client.workers) and mesh.client.workers != old, "a new worker")
    assert (mesh.client.version, mesh.http(), mesh.tcp()) == (before, 200, True)


def test_a_state_never_touches_a_disk(mesh: Mesh) -> None:
    """There is a private key in it."""
    connection = ControlConnection(mesh.client.socket_dir / "control.sock")
    try:
        connection.putrequest("PUT", "/v1/state")
        connection.putheader("Content-Length", str(4 << 20))
        connection.endheaders(b" " * (3 << 20))
        time.sleep(0.3)
        descriptors = [fd for pid in mesh.client.workers for fd in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [fd for fd in descriptors if "/body/" in str(fd.readlink())]
    finally:
        connection.close()


# endpoints


def test_every_endpoint_is_tried_whose_application_may_answer() -> None:
    """Two of three applications do not run: their sidecars' refusals lead to the third, and the log names each try."""
    with World("strict") as world:
        client = world.pod("client")
        servers = [world.pod(f"server-{i}", {8080: "http"}) for i in range(3)]
        servers[2].serve("http_server", "--port", "8080")
        # Services of their own: none knows what another learnt. Each tries all three with a chance of one in three.
        services = [world.service(f"web-{i}", {80: (8080, "http")}, servers) for i in range(40)]
        world.push()
        for service in services:
            assert client.get(f"http://{service.vip}/echo")["status"] == 200
        wait_until(lambda: client.log.count('"protocol":"HTTP/1.1"') >= len(services), "the access log")
        lines = [json.loads(line) for line in client.log.splitlines() if line.startswith("{")]
        tries = [line["upstream"].split(", ") for line in lines]
        assert any(len(endpoints) == 3 for endpoints in tries)
        assert all(len(set(endpoints)) == len(endpoints) for endpoints in tries), tries
