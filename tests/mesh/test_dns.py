"""DNS as pods see it, with the C library's resolver and over the wire."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct

import msgspec
import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from nginx_mesh.api.containers import Container
from nginx_mesh.api.meta import ObjectMeta
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import Service, ServicePort, ServiceSpec
from nginx_mesh.local.net.networks import DEFAULT
from tests.eventually import eventually

from .localnode import LocalNode, python

pytestmark = pytest.mark.mesh

SLEEP = Container(name="app", command=["sleep", "1000"])
RESOLVE = (
    "import socket, sys, time\n"
    "for name in sys.argv[1:]:\n"
    " start = time.monotonic()\n"
    " try: print(name, *sorted({a[4][0] for a in socket.getaddrinfo(name, 1)}))\n"
    " except socket.gaierror as e: print(name, 'slow' if time.monotonic() - start > 2 else e.errno)\n"
)


def service(name: str, *ips: str, selector: str | None = None) -> Service:
    spec = ServiceSpec(
        selector={"app": selector} if selector else {},
        ports=[ServicePort(port=80, name="http")],
        cluster_ip=ips[0] if ips else "None",
        cluster_ips=list(ips) or ["None"],
    )
    return Service(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)


async def resolve(node: LocalNode, pod: Pod, *names: str) -> dict[str, list[str]]:
    code, output = await node.exec(pod, *python(RESOLVE), *names)
    assert code == 0, output
    return {words[0]: words[1:] for words in map(str.split, output.splitlines())}


def ask(name: str, kind: str, *, tcp: bool = False, server: str = str(DEFAULT.nodes[0])) -> DNSRecord:
    """Put a question over the wire, from the node."""
    query = DNSRecord.question(name, kind).pack()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as connection:
        connection.settimeout(5)
        connection.connect((server, 53))
        connection.sendall(struct.pack("!H", len(query)) + query if tcp else query)
        if not tcp:
            return DNSRecord.parse(connection.recv(4096))
        with connection.makefile("rb") as stream:
            return DNSRecord.parse(stream.read(struct.unpack("!H", stream.read(2))[0]))


async def test_pods_resolve_services_and_each_other() -> None:
    async with LocalNode() as node:
        member = node.pod("db-0", SLEEP, labels={"app": "db"}, hostname="db-0", subdomain="db")
        await node.run(member)
        await node.sync([service("web", "10.96.0.9", "fd00:10:96::9"), service("db", selector="db")], member)
        full = "web.default.svc.cluster.local"
        answers = await resolve(
            node, member, "web", "web.default", full, f"{full}.", "db", "db-0.db", "no", "example.com"
        )
        vip, pod = ["10.96.0.9", "fd00:10:96::9"], sorted(member.status.ips)
        assert answers == {
            **dict.fromkeys(["web", "web.default", full, f"{full}."], vip),
            **dict.fromkeys(["db", "db-0.db"], pod),
            "no": ["-2"],
            "example.com": ["-2"],
        }
        assert await node.exec(member, "hostname") == (0, "db-0\n")


async def test_a_change_is_seen_by_the_next_query() -> None:
    async with LocalNode() as node:
        await node.kubelet.sync_services([])
        assert ask("web.default.svc.cluster.local", "A").header.rcode == RCODE.NXDOMAIN
        for number in range(20):
            await node.sync([service("web", f"10.96.0.{number + 1}")])
            assert str(ask("web.default.svc.cluster.local", "A").a.rdata) == f"10.96.0.{number + 1}"


async def test_all_four_ways_to_ask_and_truncation() -> None:
    async with LocalNode() as node:
        pods = [node.pod(f"p{number}", SLEEP, labels={"app": "many"}) for number in range(60)]
        status = msgspec.convert({"conditions": [{"type": "Ready", "status": "True"}]}, type(pods[0].status))
        for pod in pods:
            ready = msgspec.structs.replace(status, pod_ip=pod.status.pod_ip, pod_ips=pod.status.pod_ips)
            node.statuses[pod.key] = ready
        await node.sync([service("many", selector="many")], *pods)
        for server in map(str, DEFAULT.nodes):
            name = "many.default.svc.cluster.local"
            short = ask(name, "A", server=server)
            assert short.header.tc and not short.rr
            whole = ask(name, "A", tcp=True, server=server)
            assert {str(record.rdata) for record in whole.rr} == {pod.status.ips[0] for pod in pods}
            assert {QTYPE[record.rtype] for record in ask(name, "AAAA", tcp=True, server=server).rr} == {"AAAA"}


async def test_garbage_hurts_no_one() -> None:
    async with LocalNode() as node:
        await node.sync([service("web", "10.96.0.9")])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as garbage:
            garbage.connect((str(DEFAULT.nodes[0]), 53))
            for length in (0, 1, 11, 12, 40, 600):
                garbage.send(os.urandom(length))
        _, writer = await asyncio.open_connection(str(DEFAULT.nodes[0]), 53)
        writer.write(b"\xff\xff" + os.urandom(100))
        assert str(ask("web.default.svc.cluster.local", "A").a.rdata) == "10.96.0.9"
        assert str(ask("web.default.svc.cluster.local", "A", tcp=True).a.rdata) == "10.96.0.9"
        writer.close()


async def test_the_server_outlives_the_daemon_and_is_started_anew_when_it_dies() -> None:
    async with LocalNode() as node:
        await node.sync([service("web", "10.96.0.9")])

        def resolves() -> bool:
            try:
                return str(ask("web.default.svc.cluster.local", "A").a.rdata) == "10.96.0.9"
            except OSError:
                return False

        lock = node.paths.dns / "server.lock"
        pid = int(lock.read_text())
        await node.kubelet.close()
        assert resolves()
        node.kubelet = node.new_kubelet()
        await node.kubelet.start([])
        assert int(lock.read_text()) == pid
        os.kill(pid, signal.SIGKILL)
        await eventually(resolves, "a new server answers", 20)
        assert int(lock.read_text()) != pid
