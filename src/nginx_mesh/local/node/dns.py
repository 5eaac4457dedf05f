"""The cluster's DNS: names of services and pods, as Kubernetes has them (its DNS specification, version 1.1).

The server is a process of its own, so that names resolve also while no daemon runs. It reads a snapshot of the zone
whenever the daemon writes a new one. It runs without privileges once it has its sockets.

    python -m nginx_mesh.local.node.dns DIRECTORY ADDRESS…
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import msgspec
from dnslib import AAAA, CLASS, EDNS0, PTR, QTYPE, RCODE, RD, RR, SOA, SRV, A, DNSHeader, DNSRecord

from nginx_mesh.local import linux
from nginx_mesh.local.files import write_file
from nginx_mesh.local.locks import lock

from .services import Backend, ServiceEntry

ZONE_FILE = "zone.json"
LOCK_FILE = "server.lock"
PORT = 53
CLUSTER_DOMAIN = "cluster.local"

_TTL = 5
_NOBODY = 65534
_MIN_UDP = 512
_MAX_UDP = 1232
_TCP_IDLE = 10.0
_TCP_CONNECTIONS = 256
_STANDARD_QUERY = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The file that the daemon writes for the server."""

    cluster_domain: str
    services: list[ServiceEntry]


class Zone:
    """Records by name and type. Names are lower case without the final dot."""

    def __init__(self, cluster_domain: str = CLUSTER_DOMAIN) -> None:
        self.cluster_domain = cluster_domain
        self._records: defaultdict[str, defaultdict[int, list[RD]]] = defaultdict(lambda: defaultdict(list))
        self.exist(f"svc.{cluster_domain}")

    def exist(self, name: str) -> None:
        """Make a name exist, and with it its parents in the cluster domain."""
        _ = self._records[name]
        while name.endswith(f".{self.cluster_domain}"):
            name = name.partition(".")[2]
            _ = self._records[name]

    def add(self, name: str, kind: int, data: RD) -> None:
        """Add one record, once."""
        self.exist(name)
        known = self._records[name][kind]
        if all(str(data) != str(other) for other in known):
            known.append(data)

    def find(self, name: str, kind: int) -> list[RD] | None:
        """The records; an empty list when the name has none of this type, None when the name does not exist."""
        of_name = self._records.get(name)
        if of_name is None:
            return None
        return of_name.get(kind, [])

    def addresses(self, name: str) -> list[tuple[int, RD]]:
        """All A and AAAA records of a name, with their types."""
        return [(kind, data) for kind in (QTYPE.A, QTYPE.AAAA) for data in self.find(name, kind) or ()]


def build_zone(snapshot: Snapshot) -> Zone:
    """All records of a cluster. Pods that are not ready are left out, save where the service publishes them."""
    zone = Zone(snapshot.cluster_domain.lower())
    for service in snapshot.services:
        name = f"{service.name}.{service.namespace}.svc.{zone.cluster_domain}".lower()
        zone.exist(name)  # even if it is headless and has no pods
        hosts = list(_add_hosts(zone, service, name))
        if service.cluster_ips:
            for address in service.cluster_ips:
                _add_address(zone, name, address)
                zone.add(ip_address(address).reverse_pointer, QTYPE.PTR, PTR(name))
        else:
            for backend in service.active:
                for address in backend.addresses:
                    _add_address(zone, name, address)
        for index, port in enumerate(service.ports):
            if not port.name:
                continue
            srv = f"_{port.name}._{port.protocol}.{name}".lower()
            if service.cluster_ips:
                zone.add(srv, QTYPE.SRV, SRV(0, 100, port.number, name))
            for host, backend in hosts:
                if not service.cluster_ips and backend.ports[index]:
                    zone.add(srv, QTYPE.SRV, SRV(0, 100, backend.ports[index], host))
    return zone


def answer(zone: Zone, packet: bytes, *, udp: bool) -> bytes | None:
    """The reply to a query; None when the packet is no query. Names outside the cluster domain do not exist."""
    try:
        query = DNSRecord.parse(packet)
        question = query.q
        name = str(question.qname).rstrip(".").lower()
    except Exception:  # dnslib raises many kinds of exceptions for an invalid packet
        return None
    if query.header.qr:
        return None
    reply = DNSRecord(DNSHeader(id=query.header.id, qr=1, ra=1, rd=query.header.rd), q=question)
    room = _MIN_UDP
    for record in query.ar:
        if record.rtype == QTYPE.OPT:
            room = max(_MIN_UDP, min(record.rclass, _MAX_UDP))
            reply.add_ar(EDNS0(udp_len=_MAX_UDP))
            break
    if query.header.opcode != _STANDARD_QUERY or len(query.questions) != 1 or question.qclass != CLASS.IN:
        reply.header.rcode = RCODE.NOTIMP
        return bytes(reply.pack())
    _resolve(zone, name, question.qtype, reply)
    packed = bytes(reply.pack())
    if udp and len(packed) > room:
        reply.header.tc = 1
        reply.rr, reply.auth = [], []
        reply.ar = [record for record in reply.ar if record.rtype == QTYPE.OPT]
        packed = bytes(reply.pack())
    return packed


def write_snapshot(directory: Path, snapshot: Snapshot) -> None:
    """Write a new zone for the server, atomically."""
    directory.mkdir(mode=0o755, exist_ok=True)
    write_file(directory / ZONE_FILE, msgspec.json.encode(snapshot), mode=0o644)


def _resolve(zone: Zone, name: str, kind: int, reply: DNSRecord) -> None:
    found = zone.find(name, kind)
    reply.header.aa = int(found is not None or _within(name, zone.cluster_domain))
    for data in found or ():
        reply.add_answer(RR(reply.q.qname, kind, ttl=_TTL, rdata=data))
        if isinstance(data, SRV):
            target = str(data.target).rstrip(".")
            for address_type, address in zone.addresses(target):
                reply.add_ar(RR(target, address_type, ttl=_TTL, rdata=address))
    if found is None:
        reply.header.rcode = RCODE.NXDOMAIN
    if not found and _within(name, zone.cluster_domain):
        origin = zone.cluster_domain
        times = (1, 7200, 1800, 86400, _TTL)
        reply.add_auth(RR(origin, QTYPE.SOA, ttl=_TTL, rdata=SOA(f"ns.dns.{origin}", f"hostmaster.{origin}", times)))


def _add_hosts(zone: Zone, service: ServiceEntry, name: str) -> Iterator[tuple[str, Backend]]:
    """Add the names of single backends: the hostname if it has one below this service, else a name from its address."""
    for backend in service.active:
        if not backend.hostname and service.cluster_ips:
            continue
        host = backend.hostname.lower() or backend.addresses[0].replace(".", "-").replace(":", "-")
        full = f"{host}.{name}"
        for address in backend.addresses:
            _add_address(zone, full, address)
            zone.add(ip_address(address).reverse_pointer, QTYPE.PTR, PTR(full))
        yield full, backend


def _add_address(zone: Zone, name: str, address: str) -> None:
    if ip_address(address).version == 4:
        zone.add(name, QTYPE.A, A(address))
    else:
        zone.add(name, QTYPE.AAAA, AAAA(address))


def _within(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


class ZoneFile:
    """The newest readable snapshot. It is opened by a directory descriptor, as only root can open its path."""

    def __init__(self, directory_fd: int) -> None:
        self._directory_fd = directory_fd
        self._seen: tuple[int, int, int] | None = None
        self._zone = Zone()

    def current(self) -> Zone:
        """The zone of the snapshot, or of the last snapshot that was readable."""
        try:
            status = os.stat(ZONE_FILE, dir_fd=self._directory_fd)
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version != self._seen:
                fd = os.open(ZONE_FILE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory_fd)
                with os.fdopen(fd, "rb") as file:
                    self._zone = build_zone(msgspec.json.decode(file.read(), type=Snapshot))
                self._seen = version
        except (OSError, msgspec.DecodeError, ValueError) as error:
            print(f"{ZONE_FILE}: {error}; the zone stays as it was", file=sys.stderr, flush=True)
        return self._zone


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, zone: ZoneFile) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: before Python 3.12 asyncio's own UDP transport is not a DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        reply = answer(self._zone.current(), data, udp=True)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, peer)


class _Tcp:
    def __init__(self, zone: ZoneFile) -> None:
        self._zone = zone
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _TCP_CONNECTIONS:
                while await self._answer_one(reader, writer):
                    pass
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(_TCP_IDLE):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            reply = answer(self._zone.current(), await reader.readexactly(size), udp=False)
            if reply is None:
                return False
            writer.write(struct.pack("!H", len(reply)) + reply)
            await writer.drain()
        return True


async def _serve(directory_fd: int, sockets: Sequence[tuple[socket.socket, socket.socket]]) -> None:
    zone = ZoneFile(directory_fd)
    loop = asyncio.get_running_loop()
    tcp = _Tcp(zone)
    for datagram, stream in sockets:
        await loop.create_datagram_endpoint(lambda: _Udp(zone), sock=datagram)
        await asyncio.start_server(tcp.serve, sock=stream)
    await asyncio.Event().wait()


def _bind(addresses: Iterable[str]) -> list[tuple[socket.socket, socket.socket]]:
    pairs = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        pair = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_STREAM)
        pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for endpoint in pair:
            endpoint.bind((address, PORT))
        pairs.append(pair)
    return pairs


def main(arguments: Sequence[str]) -> None:
    """Serve until killed. Holds a lock on a file with its pid while it runs."""
    directory, *addresses = arguments
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    lock_fd = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    lock(lock_fd)
    sockets = _bind(addresses)
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
    linux.become(_NOBODY, _NOBODY, [], [])
    asyncio.run(_serve(directory_fd, sockets))


if __name__ == "__main__":
    main(sys.argv[1:])
