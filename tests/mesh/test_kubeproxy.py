"""Service addresses for pods without a sidecar, in the kernel."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from typing import Any

import pytest

from nginx_mesh.api.containers import Container, Probe, TCPSocketAction
from nginx_mesh.api.meta import ObjectMeta
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import Service, ServicePort, ServiceSpec

from .localnode import LocalNode, python

pytestmark = pytest.mark.mesh

V4, V6 = "10.96.0.10", "fd00:10:96::10"

# Answers each line with its name; a UDP datagram too.
SERVER = """
import os, socket, socketserver, threading
me = os.environ['HOSTNAME'].encode()
class H(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(me + b' ' + line)
class S(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(('::', 8080))
def udp():
    while True:
        data, peer = u.recvfrom(1000); u.sendto(me + b' ' + data, peer)
threading.Thread(target=udp, daemon=True).start()
S(('::', 8080), H).serve_forever()
"""
# Prints who answered each of N connections to a host, or the error.
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3) as s:
            s.sendall(b'x\\n'); print(s.recv(100).split()[0].decode())
    except OSError as e: print(type(e).__name__)
"""


def service(**spec: Any) -> Service:
    ports = [ServicePort(port=80, target_port=8080), ServicePort(port=53, protocol="UDP", target_port=8080)]
    spec = {"selector": {"tier": "web"}, "ports": ports, "cluster_ip": V4, "cluster_ips": [V4, V6], **spec}
    return Service(metadata=ObjectMeta(name="web", namespace="default"), spec=ServiceSpec(**spec))


def server(node: LocalNode, name: str) -> Pod:
    probe = Probe(tcp_socket=TCPSocketAction(port=8080), period_seconds=1)
    container = Container(name="app", command=python(SERVER), readiness_probe=probe)
    return node.pod(name, container, labels={"tier": "web"})


async def called(node: LocalNode, pod: Pod, address: str, port: int = 80, times: int = 1) -> Counter[str]:
    code, output = await node.exec(pod, *python(CLIENT), address, str(port), str(times))
    assert code == 0, output
    return Counter(output.split())


async def test_connections_are_spread_over_ready_pods_in_both_ip_versions() -> None:
    async with LocalNode() as node:
        pods = [server(node, "a"), server(node, "b")]
        client = node.pod("client", Container(name="app", command=["sleep", "1000"]))
        await node.run(*pods, client)
        await node.sync([service()], *pods, client)
        for address in (V4, V6):
            answers = await called(node, client, address, times=40)
            # Missing one of two in 40 fair choices happens once in 10^12 runs.
            assert set(answers) == {"a", "b"}, answers
        # From the node itself too.
        reader, writer = await asyncio.open_connection(V4, 80)
        writer.write(b"x\n")
        assert (await reader.readline()).split()[0] in (b"a", b"b")
        writer.close()


async def test_udp_services() -> None:
    async with LocalNode() as node:
        pod = server(node, "a")
        client = node.pod("client", Container(name="app", command=["sleep", "1000"]))
        await node.run(pod, client)
        await node.sync([service()], pod)
        ask = (
            f"import socket\nfor f, a in ((socket.AF_INET, '{V4}'), (socket.AF_INET6, '{V6}')):\n"
            " s = socket.socket(f, socket.SOCK_DGRAM); s.settimeout(3); s.connect((a, 53)); s.send(b'q')\n"
            " print(s.recv(100).decode())"
        )
        assert await node.exec(client, *python(ask)) == (0, "a q\na q\n")


async def test_a_pod_that_calls_itself_through_its_service() -> None:
    async with LocalNode() as node:
        pod = server(node, "a")
        await node.run(pod)
        await node.sync([service()], pod)
        for address in (V4, V6):
            assert await called(node, pod, address) == {"a": 1}


async def test_services_without_ready_pods_and_unknown_ports_refuse_at_once() -> None:
    async with LocalNode() as node:
        pod = server(node, "a")
        client = node.pod("client", Container(name="app", command=["sleep", "1000"]))
        await node.run(pod, client)
        await node.sync([service()], pod)
        start = asyncio.get_running_loop().time()
        for address in (V4, V6):
            assert await called(node, client, address, port=81, times=20) == {"ConnectionRefusedError": 20}
        await node.sync([service(selector={"tier": "none"})], pod)
        for address in (V4, V6, "10.96.77.77"):
            assert await called(node, client, address, times=20) == {"ConnectionRefusedError": 20}
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(V4, 80)
        assert asyncio.get_running_loop().time() - start < 5


async def test_changes_leave_connections_that_exist_alone() -> None:
    async with LocalNode() as node:
        first, second = server(node, "a"), server(node, "b")
        await node.run(first, second)
        await node.sync([service()], first)
        reader, writer = await asyncio.open_connection(V4, 80)
        writer.write(b"1\n")
        assert await reader.readline() == b"a 1\n"
        await node.sync([service()], second)
        writer.write(b"2\n")
        assert await reader.readline() == b"a 2\n"
        writer.close()
        client = node.pod("client", Container(name="app", command=["sleep", "1000"]))
        await node.run(client)
        assert await called(node, client, V4, times=20) == {"b": 20}


async def test_rules_outlive_the_daemon_and_are_gone_with_the_mesh() -> None:
    async with LocalNode() as node:
        pod = server(node, "a")
        await node.run(pod)
        await node.sync([service()], pod)
        await node.kubelet.close()
        assert "10.96.0.10" in subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True).stdout
        node.kubelet = node.new_kubelet()
        await node.kubelet.start([pod])
        assert await called(node, pod, V4) == {"a": 1}
    assert "nginx-mesh" not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
