"""An HTTP server for tests: HTTP/1.0, HTTP/1.1 and h2c with prior knowledge on one port.

Written on asyncio streams, so that a test sees exactly what came over the wire and answers leave exactly when they are
written. It prints `{"name": …, "port": …}` when it listens. `--port 0` takes a free port.

| path | answer |
|---|---|
| `/health` | 200, never counted, never failing |
| `/echo` | JSON: what the server saw: method, target, version, headers, peer, size and SHA-256 of the body |
| `/bytes/N` | N bytes of the pattern 0…255 repeated, with a length |
| `/chunks?n=3&delay=0.1` | n lines `{"index": i, "sent": t}`, one per chunk; t is CLOCK_MONOTONIC in seconds |
| `/sse?n=3&delay=0.1` | the same as server-sent events |
| `/status/N` | status N |
| `/slow?s=1` | 200 after s seconds |
| `/upload` | JSON: size and SHA-256 of the body, with `?stamps=1` also when each piece of it arrived |
| `/duplex` | the body, piece by piece as it arrives |
| `/reject` | 403 without reading the body, hence without 100 Continue |
| `/ws` | WebSocket echo |
| `/fault?kind=error&after=10` | from the 10th request from now on fail: see `Fault` |

Every answer carries `x-served-by`, the name of this instance (`--name`, else $POD_NAME, else the host's name).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request as WebSocketRequest
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.server import ServerProtocol

PIECE = 64 * 1024
HEAD_LIMIT = 256 * 1024
DRAIN_LIMIT = 1024 * 1024
PATIENCE = 5.0
PATTERN = bytes(range(256)) * (PIECE // 256)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 431: "Request Header Fields Too Large"}

Headers = list[tuple[str, str]]
FaultKind = Literal["none", "error", "hang", "close", "refuse"]
FAULTS: dict[str, FaultKind] = {kind: kind for kind in get_args(FaultKind)}


class Fault(NamedTuple):
    """How requests fail once `after` more were answered.

    error: 500. hang: no answer until the caller leaves. close: the connection ends instead of an answer.
    refuse: the process stops listening and closes its connections, but stays.
    """

    kind: FaultKind
    after: int = 0


class BadRequestError(Exception):
    """The peer broke the protocol; `status` is the answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class Request(NamedTuple):
    """The head of a request. Header names are as they came."""

    method: str
    target: str
    version: str
    headers: Headers
    peer: str

    @property
    def path(self) -> str:
        """Without query, not decoded."""
        return urlsplit(self.target).path

    def parameter(self, name: str, default: str) -> str:
        """A query parameter."""
        return dict(parse_qsl(urlsplit(self.target).query)).get(name, default)

    def header(self, name: str) -> str:
        """The values of a header joined by commas, "" without it."""
        return ", ".join(value for key, value in self.headers if key.lower() == name)


class Exchange:
    """One request and its answer. `start`, then any number of `write`, then `finish`."""

    request: Request

    def body(self) -> AsyncIterator[bytes]:
        """The pieces of the request's body as they arrive, none longer than the receive buffer."""
        raise NotImplementedError

    async def start(self, status: int, headers: Headers, length: int | None) -> None:
        """Send the head; `length` None when the body's length is not known yet."""
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        """Send a part of the body at once, and wait while the peer does not take it."""
        raise NotImplementedError

    async def finish(self) -> None:
        """End the answer."""
        raise NotImplementedError

    def abort(self) -> None:
        """Break off."""
        raise NotImplementedError


class Http1Exchange(Exchange):
    """Over HTTP/1.x. The connection goes on after it when `persistent` and `complete` say so."""

    def __init__(self, request: Request, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.request = request
        self.head = head
        self.reader = reader
        self.writer = writer
        self.started = False
        self.upgraded = False
        options = {option.strip().lower() for option in request.header("connection").split(",")}
        self.persistent = "close" not in options if request.version == "HTTP/1.1" else "keep-alive" in options
        self._chunked_body, self._left = _framing(request)
        self._chunked_answer = False
        self._awaits_continue = request.version == "HTTP/1.1" and request.header("expect").lower() == "100-continue"

    async def body(self) -> AsyncIterator[bytes]:
        if self._awaits_continue:
            self._awaits_continue = False
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self.writer.drain()
        while self._chunked_body or self._left:
            if not self._left:
                self._left = await self._next_chunk()
                if not self._left:
                    self._chunked_body = False
                    return
            piece = await self.reader.read(min(self._left, PIECE))
            if not piece:
                raise ConnectionError("the peer left within the body")
            self._left -= len(piece)
            if self._chunked_body and not self._left and await self.reader.readexactly(2) != b"\r\n":
                raise BadRequestError("a chunk does not end with CRLF")
            yield piece

    async def _next_chunk(self) -> int:
        size = (await self.reader.readuntil(b"\r\n")).split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size):
            raise BadRequestError("malformed chunk size")
        if not int(size, 16):
            while await self.reader.readuntil(b"\r\n") != b"\r\n":
                pass
        return int(size, 16)

    async def start(self, status: int, headers: Headers, length: int | None) -> None:
        self.started = True
        lines = [
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        if length is not None and status not in (204, 304):
            lines.append(f"Content-Length: {length}")
        elif length is None and self.request.version == "HTTP/1.1":
            self._chunked_answer = True
            lines.append("Transfer-Encoding: chunked")
        elif length is None:
            self.persistent = False
        if not self.persistent:
            lines.append("Connection: close")
        elif self.request.version == "HTTP/1.0":
            lines.append("Connection: keep-alive")
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self.writer.drain()

    async def write(self, data: bytes) -> None:
        if self.request.method == "HEAD" or not data:
            return
        if self._chunked_answer:
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.writer.write(data)
        await self.writer.drain()

    async def finish(self) -> None:
        if self._chunked_answer and self.request.method != "HEAD":
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def abort(self) -> None:
        self.persistent = False
        self.writer.transport.abort()

    async def complete(self) -> bool:
        """Read what is left of the body. False when that is not worth it and the connection has to end."""
        if self._awaits_continue and (self._chunked_body or self._left):
            return False
        size = 0
        async for piece in self.body():
            size += len(piece)
            if size > DRAIN_LIMIT:
                return False
        return True


def _framing(request: Request) -> tuple[bool, int]:
    """Whether the body is chunked, else its length. What two servers could understand differently is an error."""
    lengths = {value for name, value in request.headers if name.lower() == "content-length"}
    coding = request.header("transfer-encoding").lower()
    if coding:
        if lengths:
            raise BadRequestError("both Transfer-Encoding and Content-Length")
        if coding != "chunked":
            raise BadRequestError("unknown transfer coding", 501)
        return True, 0
    if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,15}", length) for length in lengths):
        raise BadRequestError("malformed Content-Length")
    return False, int(next(iter(lengths), "0"))


def parse_head(head: bytes, peer: str) -> Request:
    """A request line and headers up to the empty line. BadRequestError for what RFC 9112 forbids."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.rpartition(" ")
    if not _TOKEN.fullmatch(method) or not target or " " in target or version not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequestError("malformed request line")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequestError("malformed header")
        headers.append((name, value.strip(" \t")))
    return Request(method, target, version, headers, peer)


class Http2Exchange(Exchange):
    """One stream of an h2c connection. What the application has not read is not yet acknowledged to the peer."""

    def __init__(self, request: Request, stream: int, connection: Http2Connection) -> None:
        self.request = request
        self.received: asyncio.Queue[tuple[bytes, int] | None] = asyncio.Queue()
        self.window = asyncio.Event()
        self._stream = stream
        self._connection = connection

    async def body(self) -> AsyncIterator[bytes]:
        while (item := await self.received.get()) is not None:
            data, size = item
            self._connection.state.acknowledge_received_data(size, self._stream)
            await self._connection.flush()
            yield data

    async def start(self, status: int, headers: Headers, length: int | None) -> None:
        fields = [(":status", str(status)), *((name.lower(), value) for name, value in headers)]
        if length is not None and status not in (204, 304):
            fields.append(("content-length", str(length)))
        self._connection.state.send_headers(self._stream, fields)
        await self._connection.flush()

    async def write(self, data: bytes) -> None:
        state = self._connection.state
        while data and self.request.method != "HEAD":
            self.window.clear()
            room = min(state.local_flow_control_window(self._stream), state.max_outbound_frame_size)
            if room <= 0:
                await self.window.wait()
                continue
            state.send_data(self._stream, data[:room])
            data = data[room:]
            await self._connection.flush()

    async def finish(self) -> None:
        self._connection.state.end_stream(self._stream)
        await self._connection.flush()

    def abort(self) -> None:
        self._connection.state.reset_stream(self._stream)
        self._connection.writer.write(self._connection.state.data_to_send())


Handler = Callable[[Exchange], Awaitable[None]]


class Http2Connection:
    """A connection that began with the HTTP/2 preface."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self.writer = writer
        self._reader = reader
        self._handle = handle
        self._exchanges: dict[int, tuple[Http2Exchange, asyncio.Task[None]]] = {}

    async def run(self, received: bytes) -> None:
        """Serve until either side ends; `received` is what was read already."""
        self.state.initiate_connection()
        try:
            while received:
                for event in self.state.receive_data(received):
                    self._react(event)
                await self.flush()
                received = await self._reader.read(PIECE)
        except h2.exceptions.ProtocolError:
            await self.flush()
        finally:
            for _, task in self._exchanges.values():
                task.cancel()

    async def flush(self) -> None:
        """Send what the state machine has to say."""
        self.writer.write(self.state.data_to_send())
        await self.writer.drain()

    def _react(self, event: h2.events.Event) -> None:
        stream = getattr(event, "stream_id", 0)
        if isinstance(event, h2.events.RequestReceived):
            exchange = Http2Exchange(self._request(event.headers or []), stream, self)
            self._exchanges[stream] = exchange, asyncio.create_task(self._serve(stream, exchange))
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for exchange, _ in self._exchanges.values():
                exchange.window.set()
        elif isinstance(event, h2.events.DataReceived):
            if stream in self._exchanges:
                self._exchanges[stream][0].received.put_nowait((event.data, event.flow_controlled_length))
            else:
                self.state.acknowledge_received_data(event.flow_controlled_length, stream)
        elif stream in self._exchanges:
            exchange, task = self._exchanges[stream]
            if isinstance(event, h2.events.StreamEnded):
                exchange.received.put_nowait(None)
            elif isinstance(event, h2.events.StreamReset):
                task.cancel()

    def _request(self, fields: Sequence[tuple[str | bytes, str | bytes]]) -> Request:
        pairs = [(str(name), str(value)) for name, value in fields]
        pseudo = dict(pairs[: sum(name.startswith(":") for name, _ in pairs)])
        headers = [("host", pseudo.get(":authority", "")), *(pair for pair in pairs if not pair[0].startswith(":"))]
        return Request(pseudo[":method"], pseudo.get(":path", ""), "HTTP/2.0", headers, _peer(self.writer))

    async def _serve(self, stream: int, exchange: Http2Exchange) -> None:
        try:
            await self._handle(exchange)
        except (h2.exceptions.ProtocolError, ConnectionError):
            pass  # the stream or the connection ended under the answer
        finally:
            self._exchanges.pop(stream, None)
            while not exchange.received.empty():
                if item := exchange.received.get_nowait():
                    self.state.acknowledge_received_data(item[1], stream)


def _peer(writer: asyncio.StreamWriter) -> str:
    host, port = writer.get_extra_info("peername")[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Server:
    """The server: connections, faults and routes."""

    def __init__(self, name: str, fault: Fault, delay: float) -> None:
        self.name = name
        self.answered = 0
        self._delay = delay
        self._fault = fault
        self._listeners: list[asyncio.Server] = []
        self._refusing = asyncio.Event()
        self._connections: dict[asyncio.StreamWriter, bool] = {}  # whether it is in the middle of a request
        self._routes: dict[str, Handler] = {
            "echo": self._echo,
            "bytes": self._bytes,
            "chunks": self._chunks,
            "sse": self._sse,
            "status": self._status,
            "slow": self._slow,
            "upload": self._upload,
            "duplex": self._duplex,
            "reject": self._reject,
            "ws": self._websocket,
            "fault": self._set_fault,
            "health": self._health,
        }

    async def listen(self, host: str | None, port: int) -> int:
        """Start; returns the port. `host` None means every address, IPv6 too."""
        for address in [host] if host else ["0.0.0.0", "::"]:
            listener = await asyncio.start_server(self._connected, address, port, limit=HEAD_LIMIT, backlog=1024)
            self._listeners.append(listener)
            port = listener.sockets[0].getsockname()[1]
        return port

    def refuse(self) -> None:
        """Stop listening, end idle connections now and the others after their answer."""
        self._refusing.set()
        for listener in self._listeners:
            listener.close()
        for writer, busy in self._connections.items():
            if not busy:
                writer.close()

    async def idle(self, patience: float) -> None:
        """Wait until no connection is left, at most `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._connections:
                    await asyncio.sleep(0.01)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[writer] = False
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._connections[writer]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        persistent = True
        while persistent and not self._refusing.is_set():
            exchange = None
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                self._connections[writer] = True
                if head == b"PRI * HTTP/2.0\r\n\r\n":
                    return await Http2Connection(reader, writer, self.handle).run(head)
                exchange = Http1Exchange(parse_head(head, _peer(writer)), head, reader, writer)
                await self.handle(exchange)
                if exchange.upgraded:
                    return None
                if not await exchange.complete():
                    return await _close_gently(reader, writer)
                persistent = exchange.persistent
            except (BadRequestError, asyncio.LimitOverrunError) as error:
                status = error.status if isinstance(error, BadRequestError) else 431
                if exchange is None or not exchange.started:
                    text = f"{error}\n".encode()
                    writer.write(
                        f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\nConnection: close\r\n".encode()
                    )
                    writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
                    await _close_gently(reader, writer)
                return None
            self._connections[writer] = False
        return None

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        first = unquote(exchange.request.path).split("/")[1:2]
        route = self._routes.get(first[0] if first else "")
        if route in (self._health, self._set_fault):
            return await route(exchange)
        failing = self._fault.kind != "none" and self.answered >= self._fault.after
        if failing and self._fault.kind != "refuse":
            await self._fail(exchange)
        else:
            if self._delay:
                await asyncio.sleep(self._delay)
            await (route or self._missing)(exchange)
        self.answered += 1
        if self._fault.kind == "refuse" and self.answered >= self._fault.after:
            self.refuse()
        return None

    async def _fail(self, exchange: Exchange) -> None:
        if self._fault.kind == "error":
            return await self._answer(exchange, 500, b"told to fail\n")
        if self._fault.kind == "hang":
            await self._refusing.wait()
        exchange.abort()
        return None

    async def _answer(
        self,
        exchange: Exchange,
        status: int,
        body: bytes,
        content_type: str = "text/plain",
        more: Sequence[tuple[str, str]] = (),
    ) -> None:
        headers = [("Content-Type", content_type), ("X-Served-By", self.name), *more]
        await exchange.start(status, headers, len(body))
        await exchange.write(body)
        await exchange.finish()

    async def _json(self, exchange: Exchange, document: dict[str, object]) -> None:
        body = json.dumps({"name": self.name, **document}).encode() + b"\n"
        await self._answer(exchange, 200, body, "application/json")

    async def _missing(self, exchange: Exchange) -> None:
        await self._answer(exchange, 404, b"no such path\n")

    async def _health(self, exchange: Exchange) -> None:
        await self._answer(exchange, 200, b"ok\n")

    async def _set_fault(self, exchange: Exchange) -> None:
        kind = exchange.request.parameter("kind", "none")
        after = exchange.request.parameter("after", "0")
        if kind not in FAULTS or not after.isdigit():
            return await self._answer(exchange, 400, b"kind or after is malformed\n")
        await self._json(exchange, {"kind": kind, "after": int(after)})
        self._fault = Fault(FAULTS[kind], self.answered + int(after))
        if kind == "refuse" and not int(after):
            self.refuse()
        return None

    async def _echo(self, exchange: Exchange) -> None:
        size, digest, _ = await _consume(exchange)
        request = exchange.request
        await self._json(
            exchange,
            {
                "method": request.method,
                "target": request.target,
                "version": request.version,
                "headers": request.headers,
                "peer": request.peer,
                "size": size,
                "sha256": digest,
            },
        )

    async def _bytes(self, exchange: Exchange) -> None:
        number = exchange.request.path.removeprefix("/bytes/")
        if not number.isdigit():
            return await self._missing(exchange)
        left = int(number)
        headers = [("Content-Type", "application/octet-stream"), ("X-Served-By", self.name)]
        await exchange.start(200, headers, left)
        while left and exchange.request.method != "HEAD":
            piece = PATTERN[:left] if left < PIECE else PATTERN
            await exchange.write(piece)
            left -= len(piece)
        await exchange.finish()
        return None

    async def _chunks(self, exchange: Exchange) -> None:
        await self._stream(exchange, "application/x-ndjson", lambda index, text: f"{text}\n")

    async def _sse(self, exchange: Exchange) -> None:
        await self._stream(exchange, "text/event-stream", lambda index, text: f"id: {index}\ndata: {text}\n\n")

    async def _stream(self, exchange: Exchange, content_type: str, shape: Callable[[int, str], str]) -> None:
        count, delay = int(exchange.request.parameter("n", "3")), float(exchange.request.parameter("delay", "0.1"))
        await exchange.start(200, [("Content-Type", content_type), ("X-Served-By", self.name)], None)
        for index in range(count):
            if index:
                await asyncio.sleep(delay)
            text = json.dumps({"index": index, "sent": time.monotonic()})
            await exchange.write(shape(index, text).encode())
        await exchange.finish()

    async def _status(self, exchange: Exchange) -> None:
        number = exchange.request.path.removeprefix("/status/")
        if not re.fullmatch("[2-5][0-9][0-9]", number):
            return await self._missing(exchange)
        status = int(number)
        return await self._answer(exchange, status, b"" if status in (204, 304) else f"{status}\n".encode())

    async def _slow(self, exchange: Exchange) -> None:
        await asyncio.sleep(float(exchange.request.parameter("s", "1")))
        await self._json(exchange, {})

    async def _upload(self, exchange: Exchange) -> None:
        size, digest, stamps = await _consume(exchange, exchange.request.parameter("stamps", "") == "1")
        await self._json(exchange, {"size": size, "sha256": digest, "stamps": stamps})

    async def _duplex(self, exchange: Exchange) -> None:
        await exchange.start(200, [("X-Served-By", self.name)], None)
        async for piece in exchange.body():
            await exchange.write(piece)
        await exchange.finish()

    async def _reject(self, exchange: Exchange) -> None:
        await self._answer(exchange, 403, b"not wanted\n")

    async def _websocket(self, exchange: Exchange) -> None:
        if not isinstance(exchange, Http1Exchange) or exchange.request.header("upgrade").lower() != "websocket":
            return await self._answer(exchange, 426, b"", more=[("Upgrade", "websocket")])
        exchange.upgraded = True
        await _echo_frames(exchange)
        return None


async def _close_gently(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End our side and read on for a while: closing on unread data would destroy the answer on its way."""
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while await reader.read(PIECE):
                pass


async def _consume(exchange: Exchange, stamped: bool = False) -> tuple[int, str, list[tuple[float, int]]]:
    """Read the body: its size, SHA-256 in hex, and when asked for (arrival, size) of each piece."""
    size, digest, stamps = 0, hashlib.sha256(), []
    async for piece in exchange.body():
        size += len(piece)
        digest.update(piece)
        if stamped:
            stamps.append((time.monotonic(), len(piece)))
    return size, digest.hexdigest(), stamps


async def _echo_frames(exchange: Http1Exchange) -> None:
    protocol = ServerProtocol(max_size=None)
    received = exchange.head
    while True:
        if received:
            protocol.receive_data(received)
        else:
            protocol.receive_eof()
        for event in protocol.events_received():
            if isinstance(event, WebSocketRequest):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode in DATA_OPCODES:
                _send_frame(protocol, event)
        for data in protocol.data_to_send():
            if data:
                exchange.writer.write(data)
        await exchange.writer.drain()
        if not received or protocol.close_expected():
            return
        received = await exchange.reader.read(PIECE)


def _send_frame(protocol: WebSocketProtocol, frame: Frame) -> None:
    send = {
        Opcode.TEXT: protocol.send_text,
        Opcode.BINARY: protocol.send_binary,
        Opcode.CONT: protocol.send_continuation,
    }[frame.opcode]
    send(frame.data, frame.fin)


async def main(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM: then go on for `linger` seconds, stop listening, and leave when the last answer is out."""
    kind, _, after = arguments.fault.partition(":")
    server = Server(arguments.name, Fault(FAULTS[kind], int(after or 0)), arguments.delay)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    port = await server.listen(arguments.host, arguments.port)
    print(json.dumps({"name": arguments.name, "port": port}), flush=True)
    await stop.wait()
    await asyncio.sleep(arguments.linger)
    server.refuse()
    await server.idle(PATIENCE)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="HTTP/1.x and h2c server for tests")
    result.add_argument("--host", help="address to listen on; every one by default")
    result.add_argument("--port", type=int, default=8080)
    result.add_argument("--name", default=os.environ.get("POD_NAME") or socket.gethostname())
    result.add_argument("--fault", default="none", help=f"KIND[:AFTER], KIND one of {', '.join(FAULTS)}")
    result.add_argument("--delay", type=float, default=0, help="seconds before every answer")
    result.add_argument("--linger", type=float, default=0, help="seconds to go on serving after SIGTERM")
    return result


if __name__ == "__main__":
    asyncio.run(main(parser().parse_args()))
