"""Who may talk to whom: modes, identities on both sides, bad certificates, and changes of all of them under load."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.common.keys import to_pem
from nginx_mesh.protocol.state import Identity, Inbound, MtlsMode
from tests.eventually import wait_until

from .world import TRUST_DOMAIN, Authority, Pod, Service, World

pytestmark = pytest.mark.mesh

SOMEBODY = workload_id(TRUST_DOMAIN, "test", "somebody")
HOUR = 3600.0


class Mesh:
    """A client, a server of HTTP (8080) and TCP (2525), and a caller outside the mesh."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = world.pod("server", {8080: "http", 50051: "grpc", 2525: "tcp"})
        self.client = world.pod("client")
        self.outsider = world.pod("outsider", {8080: "http"}, meshed=False)
        self.web: Service = world.service(
            "web", {80: (8080, "http"), 50051: (50051, "grpc"), 25: (2525, "tcp")}, [self.server]
        )
        self.unmeshed: Service = world.service("unmeshed", {80: (8080, "http")}, [self.outsider])
        self.server.serve("http_server", "--port", "8080")
        self.server.serve("grpc_server", "--port", "50051")
        self.server.serve("tcp_server", "--mode", "greeting", "--port", "2525")
        self.outsider.serve("http_server", "--port", "8080")

    def set(self, mode: MtlsMode) -> None:
        self.world.mode = mode
        self.world.push()

    def http(self, caller: Pod | None = None) -> int:
        """Status of a call of the client's, 0 when the connection was cut."""
        answer = (caller or self.client).get(f"http://{self.web.vip}/echo", timeout="5")
        return int(answer.get("status", 0))

    def tcp(self) -> bool:
        return "error" not in self.client.call("tcp_client", "greeting", self.web.vip, "25", "--timeout", "5")

    def certificate(self, identity: Identity) -> Path:
        """A file that the outsider can present."""
        path = self.world.directory / f"{time.monotonic_ns()}.pem"
        path.write_text(identity.svid + identity.key)
        return path

    def intrude(self, port: int, *arguments: str) -> dict[str, object]:
        return self.outsider.call("tls_client", self.server.address, str(port), *arguments)


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with World() as world:
        yield Mesh(world)


@pytest.fixture(scope="module")
def strict() -> Iterator[Mesh]:
    with World("strict") as world:
        mesh = Mesh(world)
        world.push()
        yield mesh


def test_permissive_serves_plaintext_callers_without_an_identity(mesh: Mesh) -> None:
    mesh.set("permissive")
    answer = mesh.outsider.get(f"http://{mesh.server.address}:8080/echo", "X-Forwarded-Client-Spiffe-Id: forged")
    assert answer["status"] == 200
    assert "x-forwarded-client-spiffe-id" not in {name.lower() for name, _ in answer["body"]["headers"]}
    assert "error" not in mesh.outsider.call("tcp_client", "greeting", mesh.server.address, "2525")


def test_strict_refuses_plaintext_callers(strict: Mesh) -> None:
    answer = strict.outsider.get(f"http://{strict.server.address}:8080/echo")
    assert answer["status"] == 400
    assert "strict" in answer["body"]
    refusal = strict.outsider.call("tcp_client", "greeting", strict.server.address, "2525", "--timeout", "20")
    assert "timed out" not in refusal["error"], "closed, not left waiting"


def test_strict_lets_nothing_out_that_is_not_meshed(strict: Mesh) -> None:
    assert strict.client.get(f"http://{strict.unmeshed.vip}/echo")["status"] == 503


def test_permissive_reaches_what_is_not_meshed(mesh: Mesh) -> None:
    mesh.set("permissive")
    assert mesh.client.get(f"http://{mesh.unmeshed.vip}/echo")["status"] == 200


def test_a_kept_plaintext_connection_is_refused_once_the_mode_turns_strict(mesh: Mesh) -> None:
    mesh.set("permissive")
    script = (
        "import http.client,sys;"
        f"c=http.client.HTTPConnection('{mesh.server.address}',8080);"
        "c.request('GET','/echo');r=c.getresponse();r.read();print(r.status,flush=True);"
        "sys.stdin.readline();"
        "c.request('GET','/echo');print(c.getresponse().status,flush=True)"
    )
    with subprocess.Popen(
        mesh.outsider.command("python3", "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline().strip() == "200"
        mesh.set("strict")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == "400"


@pytest.mark.parametrize("client_mode", ["off", "permissive", "strict"])
@pytest.mark.parametrize("server_mode", ["off", "permissive", "strict"])
def test_modes_of_single_pods(mesh: Mesh, client_mode: MtlsMode, server_mode: MtlsMode) -> None:
    mesh.client.mode = client_mode
    mesh.server.mode = server_mode
    mesh.world.push()
    tls = client_mode != "off" and server_mode != "off"
    works = tls or server_mode != "strict"
    assert mesh.http() == (200 if works else 400)
    assert mesh.tcp() == works


def test_a_valid_certificate_of_another_identity_is_refused(mesh: Mesh) -> None:
    mesh.server.expected_id = str(SOMEBODY)
    mesh.set("strict")
    assert mesh.http() == 502
    assert not mesh.tcp()
    wait_until(lambda: f'proved the SPIFFE ID "{mesh.server.spiffe_id}"' in mesh.client.log, "the reason in the log")
    assert str(SOMEBODY) in mesh.client.log


def test_an_impostor_among_endpoints_is_passed_over(mesh: Mesh) -> None:
    impostor = mesh.world.pod("impostor", {8080: "http"})
    impostor.serve("http_server", "--port", "8080")
    impostor.expected_id = str(SOMEBODY)
    mesh.web.pods.append(impostor)
    mesh.set("strict")
    answer = mesh.client.call("load", "--http", f"http://{mesh.web.vip}/echo", "--rate", "100", "--seconds", "2")
    assert answer["failed"] == 0, answer
    assert set(answer["served_by"]) == {"server"}


BAD_SERVERS: dict[str, Callable[[World], Identity]] = {
    "another authority": lambda world: Authority().identity(world_server(world), bundle=world.authority.bundle),
    "another trust domain": lambda world: Authority("evil.org").identity(
        SpiffeId.parse("spiffe://evil.org/ns/test/sa/server"), bundle=world.authority.bundle
    ),
    "expired": lambda world: world.authority.identity(world_server(world), valid=(-HOUR, -1)),
    "not yet valid": lambda world: world.authority.identity(world_server(world), valid=(HOUR, 2 * HOUR)),
}


def world_server(world: World) -> SpiffeId:
    """The server pod's own ID."""
    return next(pod for pod in world.pods if pod.name == "server").spiffe_id


@pytest.mark.parametrize("flaw", BAD_SERVERS)
def test_a_server_with_a_bad_certificate_is_refused(mesh: Mesh, flaw: str) -> None:
    mesh.server.identity = BAD_SERVERS[flaw](mesh.world)
    mesh.set("strict")
    assert mesh.http() == 502
    assert not mesh.tcp()


@pytest.mark.parametrize("flaw", BAD_SERVERS)
def test_a_client_with_a_bad_certificate_gets_400(strict: Mesh, flaw: str) -> None:
    path = strict.certificate(BAD_SERVERS[flaw](strict.world))
    answer = strict.intrude(8080, "--cert", str(path))
    assert str(answer.get("answer", "")).startswith("HTTP/1.1 400"), answer
    for arguments in ((), ("--alpn", "nginx-mesh-tcp")):
        answer = strict.intrude(2525, "--cert", str(path), "--send", "", *arguments)
        assert "220" not in str(answer.get("answer", "")), answer


def test_a_client_without_a_certificate_gets_400(strict: Mesh) -> None:
    assert str(strict.intrude(8080)["answer"]).startswith("HTTP/1.1 400")
    assert "220" not in str(strict.intrude(2525, "--send", "").get("answer", ""))


def test_the_authoritys_own_certificate_is_no_identity(strict: Mesh) -> None:
    """A CA certificate carries the trust domain's ID and is no workload's."""
    authority = strict.world.authority
    path = strict.world.directory / "ca.pem"
    path.write_text(authority.bundle + to_pem(authority.signer.key))
    answer = strict.intrude(8080, "--cert", str(path))
    assert not str(answer.get("answer", "")).startswith("HTTP/1.1 200"), answer


def test_a_good_certificate_of_any_tls_stack_is_accepted(strict: Mesh) -> None:
    path = strict.certificate(strict.world.authority.identity(SOMEBODY))
    answer = strict.intrude(8080, "--cert", str(path))
    assert str(answer["answer"]).startswith("HTTP/1.1 200")
    assert answer["server_spiffe_ids"] == [str(strict.server.spiffe_id)]
    assert answer["version"] == "TLSv1.3"
    assert "220" in str(strict.intrude(2525, "--cert", str(path), "--send", "")["answer"])


@pytest.mark.parametrize(("version", "works"), [("TLSv1_1", False), ("TLSv1_2", True)])
def test_tls_is_1_2_at_least(strict: Mesh, version: str, works: bool) -> None:
    path = strict.certificate(strict.world.authority.identity(SOMEBODY))
    answer = strict.intrude(8080, "--cert", str(path), "--max-version", version)
    assert ("error" not in answer) == works, answer


def test_refusals_speak_grpc_to_grpc(mesh: Mesh) -> None:
    mesh.server.inbound[50051] = Inbound(protocols=["grpc"], grants=[])
    mesh.set("strict")
    assert mesh.client.call("grpc_client", "unary", f"{mesh.web.vip}:50051")["code"] == "PERMISSION_DENIED"
    mesh.web.pods.clear()
    mesh.world.push()
    assert mesh.client.call("grpc_client", "unary", f"{mesh.web.vip}:50051")["code"] == "UNAVAILABLE"


def test_garbage_instead_of_a_handshake_leaves_the_sidecar_well(strict: Mesh) -> None:
    script = (
        "import os,socket\n"
        "for first in (b'\\x16\\x03\\x01\\xff\\xff', b'\\x16\\x03\\x01\\x00\\x05', b'\\x16', b'', b'\\x00'):\n"
        "  for port in (8080, 2525, 9999):\n"
        "    try:\n"
        f"      s = socket.create_connection(('{strict.server.address}', port), 2); s.settimeout(0.3)\n"
        "      s.sendall(first + os.urandom(1 << 20)); s.recv(100)\n"
        "    except OSError: pass\n"
    )
    workers = strict.server.workers
    strict.outsider.output("python3", "-c", script)
    assert strict.server.workers == workers
    assert strict.http() == 200


def test_undeclared_ports_are_closed_to_the_mesh(strict: Mesh) -> None:
    strict.server.serve("http_server", "--port", "9090")
    assert "error" in strict.outsider.get(f"http://{strict.server.address}:9090/echo", timeout="3")


def test_nothing_is_lost_while_modes_identities_and_authorities_change(mesh: Mesh) -> None:
    """A load of HTTP and gRPC goes on through three modes, rotations, and a new CA announced before it signs."""
    mesh.set("off")
    load = mesh.client.start(
        "load",
        *("--http", f"http://{mesh.web.vip}/echo", "--grpc", f"{mesh.web.vip}:50051"),
        *("--rate", "200", "--seconds", "12"),
    )
    time.sleep(1)
    meshed = [mesh.server, mesh.client]
    modes: tuple[MtlsMode, ...] = ("permissive", "strict", "permissive", "strict")
    for mode in modes:
        # A server accepts what the new mode asks before clients send it, as the control plane does.
        mesh.world.mode = mode
        mesh.world.push([mesh.server])
        mesh.world.push([mesh.client])
        time.sleep(0.5)
    old, new = mesh.world.authority, Authority()
    both = old.bundle + new.bundle
    for authority in (old, old, new, new):
        for pod in meshed:
            pod.identity = authority.identity(pod.spiffe_id, bundle=both)
        mesh.world.push()
        time.sleep(0.7)
    for pod in meshed:
        pod.identity = new.identity(pod.spiffe_id)
    mesh.world.push()
    pids = [pod.workers for pod in meshed]
    out, _ = load.communicate(timeout=60)
    answer = json.loads(out)
    assert answer["failed"] == 0, json.dumps(answer, indent=1)
    assert answer["ok"] > 2000
    assert [pod.workers for pod in meshed] == pids, "a worker was replaced"
