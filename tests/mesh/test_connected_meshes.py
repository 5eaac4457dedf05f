"""Two meshes of one machine, each with a trust domain and a network of its own: connected, then federated."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.local.net import netns
from nginx_mesh.local.node.cleanup import kill_in_namespaces

from .localcli import LocalCli
from .manifests import SHOP, idle_pod, service_account

pytestmark = pytest.mark.mesh

WEB = """
apiVersion: v1
kind: ConfigMap
metadata: {name: code, namespace: shop}
data:
  web.py: |
    import socket, threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from socketserver import BaseRequestHandler, ThreadingTCPServer

    class Web(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            body = (self.headers.get("X-Forwarded-Client-Spiffe-Id") or "somebody").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Caller-Address", self.client_address[0])
            self.end_headers()
            self.wfile.write(body)

    class Greeter(BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"hello")

    ThreadingTCPServer.allow_reuse_address = True
    ThreadingHTTPServer.address_family = ThreadingTCPServer.address_family = socket.AF_INET6
    threading.Thread(target=ThreadingTCPServer(("", 7000), Greeter).serve_forever).start()
    ThreadingHTTPServer(("", 8080), Web).serve_forever()
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: web
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    command: [python3, -u, /code/web.py]
    ports: [{containerPort: 8080, name: http}, {containerPort: 7000, name: tcp}]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
    volumeMounts: [{name: code, mountPath: /code}]
  volumes: [{name: code, configMap: {name: code}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 7000}]}
---
"""
APP = (
    SHOP
    + service_account("web")
    + service_account("client")
    + WEB
    + idle_pod("client", account="client")
    + idle_pod("visitor", "default")
)
# The other mesh's web, under a name of this one.
REMOTE = """
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: shop
  annotations: {{config.nsm.nginx.com/peer-spiffe-id: "{peer}"}}
spec: {{{headless}ports: [{{name: http, port: 80}}, {{name: tcp, port: 7000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: ["{address}"]}}]
ports: [{{name: http, port: 8080}}, {{name: tcp, port: 7000}}]
"""
CALL = """
import http.client, socket, sys
host, http_port, tcp_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
try:
    connection = http.client.HTTPConnection(host, http_port, timeout=5)
    connection.request("GET", "/", headers={"X-Forwarded-Client-Spiffe-Id": "forged"})
    answer = connection.getresponse()
    body = answer.read().decode()
    print(body if answer.status == 200 else answer.status)
except (OSError, http.client.HTTPException) as error:
    print(type(error).__name__)
try:
    with socket.create_connection((host, tcp_port), 5) as stream:
        print(stream.recv(100).decode() or "closed")
except OSError:
    print("closed")
"""
NOT_BELIEVED = ("502", "closed")


@dataclass
class Side:
    """A mesh, its trust domain, and the address of its web pod."""

    mesh: LocalCli
    trust_domain: str
    network: str
    web: str = ""

    @property
    def node(self) -> str:
        """The address of the mesh's node, where it publishes its bundle."""
        return str(next(ip_network(self.network).hosts()))

    def up(self) -> None:
        endpoint = {"identity": {"federation": {"bundleEndpoint": {"address": f"{self.node}:8443"}}}}
        self.mesh.paths.make()
        (self.mesh.paths.state / "identity.json").write_text(json.dumps(endpoint))
        flags = ("--mtls-trust-domain", self.trust_domain, "--pod-network", self.network)
        self.mesh.ok("up", "-f", "-", *flags, stdin=APP.encode())
        self.web = str(self.get("pod", "web")["status"]["podIPs"][0]["ip"])

    def id_of(self, account: str) -> str:
        return f"spiffe://{self.trust_domain}/ns/shop/sa/{account}"

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.mesh.ok("get", kind, name, "-n", "shop", "-o", "json"))
        return found

    def call(self, host: str, http_port: int = 80, tcp_port: int = 7000, *, pod: str = "client") -> tuple[str, ...]:
        """What the client gets of a host by HTTP and by TCP."""
        namespace = "shop" if pod == "client" else "default"
        command = ("python3", "-c", CALL, host, str(http_port), str(tcp_port))
        return tuple(self.mesh.ok("exec", pod, "-n", namespace, "-c", pod, "--", *command).split())

    def federate(self, other: Side, bundle: str = "") -> None:
        """Believe the other mesh's workloads, from its bundle of today on, or an earlier one."""
        file = self.mesh.root / f"{other.trust_domain}.json"
        file.write_text(bundle or identity("bundle", "--format", "spiffe", of=other))
        flags = {
            # A relationship that was deleted and made again within seconds goes on where it was: this is another.
            "--endpoint": f"https://{other.node}:8443{'' if bundle else '/'}",
            "--profile": "https_spiffe",
            "--endpoint-spiffe-id": f"spiffe://{other.trust_domain}/nginx-mesh/identity",
            "--bundle": str(file),
        }
        identity("federation", "create", other.trust_domain, *chain.from_iterable(flags.items()), of=self)

    def separate(self, other: Side) -> None:
        """Believe them no more."""
        identity("federation", "delete", other.trust_domain, of=self)

    @property
    def proved(self) -> tuple[str, str]:
        """What this mesh's client gets of a web that believes it."""
        return self.id_of("client"), "hello"

    def learn(self, other: Side, name: str = "far", peer: str = "", headless: str = "") -> None:
        """Get to know the other mesh's web."""
        peer = peer or other.id_of("web")
        self.mesh.apply(REMOTE.format(name=name, peer=peer, address=other.web, headless=headless))

    def wait_for(self, host: str, answers: tuple[str, str], http_port: int = 80) -> None:
        """Wait until the client gets this of a host."""
        self.mesh.wait(lambda: self.call(host, http_port) == answers)

    def wait_for_log(self, pod: str, text: str) -> None:
        self.mesh.wait(lambda: text in self.sidecar_log(pod))

    def sidecar_log(self, pod: str) -> str:
        return self.mesh.ok("logs", pod, "-n", "shop", "-c", "nginx-mesh-sidecar")


def local(mesh: LocalCli, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that is about more than one mesh."""
    return mesh.meshctl("local", *words)


def identity(*words: str, of: Side) -> str:
    """A command of `nginx-meshctl identity`; what it prints."""
    done = of.mesh.meshctl("identity", *words, "--mesh", of.mesh.name)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sides() -> Iterator[tuple[Side, Side]]:
    with LocalCli() as mesh:
        one = Side(mesh, "one.example", "10.244.0.0/16")
        two = Side(mesh.beside(), "two.example", "10.245.128.0/20")
        for side in (one, two):
            side.up()
        yield one, two


@pytest.fixture
def connected(sides: tuple[Side, Side]) -> tuple[Side, Side]:
    one, two = sides
    done = local(one.mesh, "connect", one.mesh.name, two.mesh.name)
    assert done.returncode == 0, done.stderr
    return sides


def links_of(side: Side) -> list[str]:
    """The interfaces of a node that lead to other meshes."""
    shown = subprocess.run(
        ["ip", "-n", side.mesh.paths.node_netns, "-o", "link"], capture_output=True, text=True, check=True
    ).stdout
    return [line.split(": ")[1].split("@")[0] for line in shown.splitlines() if ": link" in line]


def test_meshes_reach_each_other_once_they_are_connected(sides: tuple[Side, Side]) -> None:
    one, two = sides
    assert "hello" not in one.call(two.web, 8080, pod="visitor")
    for words in (("connect", one.mesh.name, two.mesh.name), ("connect", two.mesh.name, one.mesh.name)):
        done = local(one.mesh, *words)
        assert (done.returncode, done.stderr) == (0, ""), "once more changes nothing"
    assert len(links_of(one)) == len(links_of(two)) == 1
    for here, there in ((one, two), (two, one)):
        for address in there.get("pod", "web")["status"]["podIPs"]:
            assert here.call(address["ip"], 8080, pod="visitor") == ("somebody", "hello"), address
        assert here.call(there.web, 8080) == ("somebody", "hello"), "what no service names is outside of the mesh"
    listed = local(one.mesh, "list").stdout.splitlines()
    assert any(
        line.split()[0] == one.mesh.name and line.split()[-2:] == [one.network, two.mesh.name] for line in listed
    )


def test_pods_keep_their_addresses_and_cannot_take_others(connected: tuple[Side, Side]) -> None:
    """No translation on the way; and from a link a node takes packets of the other mesh's pods only."""
    one, two = connected
    visitor = one.mesh.ok("get", "pod", "visitor", "-n", "default", "-o", "json")
    address = json.loads(visitor)["status"]["podIP"]
    script = "import http.client;c=http.client.HTTPConnection('%s',8080,timeout=5);c.request('GET','/');c.getresponse()"
    one.mesh.ok("exec", "visitor", "--", "python3", "-c", script % two.web)
    assert f"{address} " in two.sidecar_log("web").replace(f"{address}:", f"{address} ")
    for side in (one, two):
        (link,) = links_of(side)
        setting = Path("/proc/sys/net/ipv4/conf", link, "rp_filter")
        assert netns.run_in_thread(setting.read_text, side.mesh.paths.node_netns) == "1\n"


@pytest.fixture
def acquainted(connected: tuple[Side, Side]) -> Iterator[tuple[Side, Side]]:
    """Each knows the other's web by a service; they do not federate."""
    for here, there in (connected, connected[::-1]):
        here.learn(there)
    yield connected
    for here, there in (connected, connected[::-1]):
        here.mesh.ok("up", "--mtls-mode", "permissive")
        if there.trust_domain in identity("federation", "list", of=here):
            here.separate(there)


def federate(one: Side, two: Side) -> None:
    """Both ways, and wait until sidecars know."""
    one.federate(two)
    two.federate(one)
    for here in (one, two):
        here.wait_for("far", here.proved)


def test_workloads_of_meshes_that_federate_call_each_other(acquainted: tuple[Side, Side]) -> None:
    """By HTTP and TCP, in both directions, and both sides see whom they speak to."""
    for here in acquainted:
        here.wait_for("far", NOT_BELIEVED)
        assert "no trust bundle for the trust domain" in here.sidecar_log("client")
    federate(*acquainted)
    for here, there in (acquainted, acquainted[::-1]):
        here.learn(there, "direct", headless="clusterIP: None, ")
        assert here.call(there.web, 8080) == here.proved, "dialled by its address"
        here.wait_for("direct", here.proved, 8080)
        here.wait_for_log("client", f"upstream_id={there.id_of('web')}")
        there.wait_for_log("web", f" - {here.id_of('client')} [")
        assert here.call("far.shop", pod="visitor") == ("somebody", "hello"), "who is not meshed has no identity"


def test_a_bundle_is_fetched_from_the_other_mesh(acquainted: tuple[Side, Side]) -> None:
    """What an operator entered is of yesterday; the CA that is announced since is learnt from the bundle endpoint."""
    one, two = acquainted
    yesterday = identity("bundle", "--format", "spiffe", of=two)
    identity("rotate-ca", "--overlap", "10m", of=two)
    roots = identity("bundle", of=two)
    assert roots.count("BEGIN") == 2
    two.federate(one)
    one.federate(two, yesterday)
    one.mesh.wait(lambda: identity("bundle", "--trust-domain", two.trust_domain, of=one) == roots)
    one.wait_for("far", one.proved)


def test_a_strict_mesh_calls_workloads_of_another_that_prove_the_right_identity(
    acquainted: tuple[Side, Side],
) -> None:
    one, two = acquainted
    federate(one, two)
    for side in (one, two):
        side.mesh.ok("up", "--mtls-mode", "strict")
    for side in (one, two):
        side.wait_for("far", side.proved)
    assert one.call("far.shop", pod="visitor") == ("400", "closed")
    one.learn(two, "impostor", peer=two.id_of("client"))
    one.wait_for("impostor", NOT_BELIEVED)
    one.wait_for_log("client", f'proved the SPIFFE ID "{two.id_of("web")}"')


def test_the_end_of_a_relationship_ends_it_for_sidecars(acquainted: tuple[Side, Side]) -> None:
    one, two = acquainted
    federate(one, two)
    two.separate(one)
    two.wait_for("far", NOT_BELIEVED)
    assert one.call("far") == ("400", "closed"), "we would still call them, but they believe us no more"
    two.federate(one)
    two.wait_for("far", two.proved)
    assert one.call("far") == one.proved


def test_meshes_that_are_not_there_are_parted_as_well(connected: tuple[Side, Side]) -> None:
    """As after a reboot, which leaves no node and nothing below /run; then one of them is made anew."""
    one, _ = connected
    third = one.mesh.beside()
    third.ok("up", "--pod-network", "10.251.0.0/24")
    assert local(one.mesh, "connect", third.name, one.mesh.name).returncode == 0
    os.kill(third.daemon_pid(), signal.SIGKILL)
    kill_in_namespaces([third.paths.node_netns])
    netns.delete(third.paths.node_netns)
    shutil.rmtree(third.paths.run)
    one.mesh.wait(lambda: len(links_of(one)) == 1)
    third.ok("down")
    assert local(one.mesh, "disconnect", one.mesh.name, third.name).returncode == 1, "it is parted already"
    assert json.loads((one.mesh.paths.state / "peers.json").read_text()) == [connected[1].mesh.name]


def test_a_link_is_laid_again_when_a_daemon_starts(connected: tuple[Side, Side]) -> None:
    one, two = connected
    (link,) = links_of(one)
    subprocess.run(["ip", "-n", one.mesh.paths.node_netns, "link", "del", link], check=True)
    assert links_of(two) == []
    os.kill(two.mesh.daemon_pid(), signal.SIGKILL)
    two.mesh.wait(lambda: "stopped" in local(two.mesh, "list").stdout)
    two.mesh.ok("up")
    assert one.call(two.web, 8080, pod="visitor") == ("somebody", "hello")
    assert two.call(one.web, 8080, pod="visitor") == ("somebody", "hello")


def test_disconnected_meshes_do_not_reach_each_other(connected: tuple[Side, Side]) -> None:
    one, two = connected
    done = local(one.mesh, "disconnect", two.mesh.name, one.mesh.name)
    assert done.returncode == 0, done.stderr
    assert links_of(one) == links_of(two) == []
    assert "hello" not in one.call(two.web, 8080, pod="visitor")
    done = local(one.mesh, "disconnect", one.mesh.name, two.mesh.name)
    assert (done.returncode, done.stderr.count("is not connected")) == (1, 1)


def test_what_cannot_be_connected_is_refused(connected: tuple[Side, Side]) -> None:
    one, two = connected
    third = one.mesh.beside()
    third.ok("up", "--pod-network", "10.245.136.0/24")
    try:
        done = local(one.mesh, "connect", third.name, two.mesh.name)
        assert done.returncode == 1
        assert "the pod network 10.245.128.0/20 of" in done.stderr
        assert "overlaps with 10.245.136.0/24" in done.stderr
        done = local(one.mesh, "connect", one.mesh.name, third.name)
        assert f'to which "{one.mesh.name}" is connected' in done.stderr, done.stderr
        assert len(links_of(one)) == 1
        for words in (("connect", one.mesh.name, one.mesh.name), ("connect", one.mesh.name, "nobody")):
            done = local(one.mesh, *words)
            assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert "cannot change" in one.mesh.fails("up", "--pod-network", "10.9.0.0/16")
    finally:
        third.ok("down")


def test_a_link_goes_with_either_mesh(connected: tuple[Side, Side]) -> None:
    one, _ = connected
    third = one.mesh.beside()
    third.ok("up", "--pod-network", "10.250.0.0/24")
    assert local(one.mesh, "connect", one.mesh.name, third.name).returncode == 0
    assert len(links_of(one)) == 2
    third.ok("down")
    assert len(links_of(one)) == 1
    assert third.name not in local(one.mesh, "list").stdout
    again = LocalCli(one.mesh.root)
    again.name, again.paths = third.name, third.paths
    again.ok("up", "--pod-network", "10.250.0.0/24")
    assert len(links_of(one)) == 1, "a new mesh of that name is another"
    again.ok("down")
