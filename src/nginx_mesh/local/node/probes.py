"""Startup, readiness and liveness probes of containers, with the results counted as Kubernetes counts them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache

from nginx_mesh.api.containers import Container, GRPCAction, HTTPGetAction, Probe
from nginx_mesh.api.meta import IntOrString

# Until the first success, a container is probed more often than its period says, so that a quick start is seen at once.
EAGER_FIRST_DELAY = 0.1
EAGER_GROWTH = 1.5

_HEAD_LIMIT = 16 * 1024
_ANSWER_LIMIT = 64 * 1024

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ExecRunner = Callable[[list[str]], Awaitable[int]]


class ProbeError(Exception):
    """The probe failed. The message, which users see, says why."""


class ProbeCounter:
    """Turns single results into a verdict, by `successThreshold` and `failureThreshold`.

    `verdict` is true for success. Its first value is given.
    """

    def __init__(self, probe: Probe, verdict: bool) -> None:
        self._probe = probe
        self._run = 0
        self._last: bool | None = None
        self.verdict = verdict

    def record(self, success: bool) -> bool:
        """Count one result; returns the verdict after it."""
        self._run = self._run + 1 if success is self._last else 1
        self._last = success
        needed = self._probe.success_threshold if success else self._probe.failure_threshold
        if self._run >= needed:
            self.verdict = success
        return self.verdict


def eager_delays(period: float) -> list[float]:
    """The seconds between the attempts of the first period."""
    delays: list[float] = []
    delay = EAGER_FIRST_DELAY
    while sum(delays) + delay < period:
        delays.append(delay)
        delay *= EAGER_GROWTH
    return delays


async def run_probe(probe: Probe, container: Container, address: str, run_in_container: ExecRunner) -> None:
    """Probe once, from the node, for at most `timeoutSeconds`. Raises ProbeError unless the probe succeeds.

    `address` is that of the pod. `run_in_container` runs a command in the container and returns its exit code.
    """
    timeout = max(1, probe.timeout_seconds)
    try:
        async with asyncio.timeout(timeout):
            if probe.http_get is not None:
                await _http(probe.http_get, _port(probe.http_get.port, container), address)
            elif probe.tcp_socket is not None:
                await _tcp(probe.tcp_socket.host or address, _port(probe.tcp_socket.port, container))
            elif probe.grpc is not None:
                await _grpc(probe.grpc, address)
            elif probe.exec is not None:
                code = await run_in_container(probe.exec.command)
                if code:
                    raise ProbeError(f"command {probe.exec.command!r} exited with {code}")
            else:
                raise ProbeError("the probe has none of httpGet, tcpSocket, grpc, exec")
    except TimeoutError:
        raise ProbeError(f"timed out after {timeout} s") from None
    except (OSError, EOFError, ValueError) as error:
        raise ProbeError(str(error) or type(error).__name__) from None


def _port(port: IntOrString, container: Container) -> int:
    if isinstance(port, int):
        return port
    for declared in container.ports:
        if declared.name == port:
            return declared.container_port
    if port.isdecimal():
        return int(port)
    raise ProbeError(f"the container has no port named {port!r}")


@contextlib.asynccontextmanager
async def _connection(host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[_Streams]:
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_HEAD_LIMIT)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _tcp(host: str, port: int) -> None:
    async with _connection(host, port):
        pass


async def _http(action: HTTPGetAction, port: int, address: str) -> None:
    host = action.host or address
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    headers = {
        "host": ("Host", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"),
        "user-agent": ("User-Agent", "kube-probe/1.30"),
        "accept": ("Accept", "*/*"),
    }
    headers |= {header.name.lower(): (header.name, header.value) for header in action.http_headers}
    headers["connection"] = ("Connection", "close")
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.values())]
    if not all(line.isprintable() for line in lines) or " " in path:
        raise ProbeError("path or headers have characters that HTTP does not allow")
    tls = _unverified() if action.scheme.upper() == "HTTPS" else None
    async with _connection(host, port, tls) as (reader, writer):
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        try:
            status = (await reader.readline()).split(maxsplit=2)
        except ValueError:
            status = []
    if len(status) < 2 or not status[0].startswith(b"HTTP/") or not status[1].isdigit():
        raise ProbeError("the answer is not HTTP")
    if not 200 <= int(status[1]) < 400:
        raise ProbeError(f"HTTP probe failed with statuscode: {int(status[1])}")


@cache
def _unverified() -> ssl.SSLContext:
    """A context that verifies no certificate, as Kubernetes does in probes: they test whether a server answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# The gRPC health protocol in the few HTTP/2 frames that one unary call takes. No header needs decoding, because only
# the message SERVING counts as success.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_STREAM = 1
_SERVING = b"\x08\x01"
_MAX_FRAME = 16384


async def _grpc(action: GRPCAction, address: str) -> None:
    service = action.service.encode()
    request = b"\x0a" + _varint(len(service)) + service if service else b""
    authority = f"[{address}]:{action.port}" if ":" in address else f"{address}:{action.port}"
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": authority,
        "content-type": "application/grpc",
        "user-agent": "kube-probe/1.30",
        "te": "trailers",
    }
    block = b"".join(b"\x00" + _hpack(name) + _hpack(value) for name, value in headers.items())
    message = struct.pack("!BI", 0, len(request)) + request
    async with _connection(address, action.port) as (reader, writer):
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_HEADERS, _STREAM, block))
        writer.write(_frame(_DATA, _END_STREAM, _STREAM, message))
        answer = await _grpc_answer(reader, writer)
    if answer[5:] != _SERVING:
        raise ProbeError("the service is not SERVING")


async def _grpc_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The content of all DATA frames of the stream, until it ends."""
    received = b""
    while True:
        head = await reader.readexactly(9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        if size > _MAX_FRAME or len(received) > _ANSWER_LIMIT:
            raise ProbeError("the answer is not HTTP/2, or too large")
        payload = await reader.readexactly(size)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RST_STREAM, _GOAWAY):
            raise ProbeError("the server refused the call")
        elif kind == _DATA:
            received += payload[1 : len(payload) - payload[0]] if flags & _PADDED and payload else payload
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            return received


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


def _hpack(text: str) -> bytes:
    """A string literal of HPACK without Huffman coding (RFC 7541, 5.2)."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    return b"\x7f" + _varint(len(data) - 127) + data


def _varint(number: int) -> bytes:
    """Seven bits per byte, the lowest first: an integer of protobuf, or the rest of one of HPACK (RFC 7541, 5.1)."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
