"""HTTP/1.1 clients for tests, on blocking sockets: what is written leaves at once, what arrives is stamped at once.

    http_client.py request URL [--method M] [--header NAME:VALUE]… [--size N] [--count N]
    http_client.py pipeline URL [--count N]       N requests in one write, then their answers
    http_client.py chunks URL                     a streamed answer of /chunks, each line with its arrival
    http_client.py upload-chunks URL              a chunked body written slowly to /upload?stamps=1
    http_client.py duplex URL                     a conversation with /duplex inside one request
    http_client.py expect URL                     Expect: 100-continue
    http_client.py download URL                   the body of /bytes/N, compared with the pattern
    http_client.py upload URL --size N [--chunked]
    http_client.py websocket URL [--count N] [--size N]

Each prints one JSON document. Exit code 1 with `{"error": …}` when the connection or the protocol failed. Times are
CLOCK_MONOTONIC in seconds, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import websockets.exceptions
from websockets.sync.client import connect

PIECE = 64 * 1024
PATTERN = bytes(range(256)) * (PIECE // 256 + 1)

Document = dict[str, Any]


class ProtocolError(Exception):
    """The server's answer is not HTTP/1.1, or ended early."""


class Answer(NamedTuple):
    """The head of an answer. Header names are lower case."""

    status: int
    headers: dict[str, str]


class Connection:
    """One connection, which the caller may write to as it likes."""

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        self.target = parts.path + (f"?{parts.query}" if parts.query else "")
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = io.BufferedReader(self._socket.makefile("rb", buffering=0), PIECE)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._received.close()
        self._socket.close()

    def timeout(self, seconds: float) -> None:
        """How long reads wait from now on."""
        self._socket.settimeout(seconds)

    def send(self, data: bytes | memoryview) -> None:
        """Write at once."""
        self._socket.sendall(data)

    def head(self, method: str, *headers: str) -> bytes:
        """A request head; `headers` are whole lines."""
        return "\r\n".join([f"{method} {self.target} HTTP/1.1", f"Host: {self.host}", *headers, "", ""]).encode()

    def answer(self) -> Answer:
        """Read the head of an answer, also an interim one."""
        version, _, rest = self._line().partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            raise ProtocolError(f"not a status line: {version} {rest}")
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(rest[:3]), headers)

    def body(self, answer: Answer, method: str = "GET") -> Iterator[bytes]:
        """The pieces of the answer's body as they arrive: whole chunks when it is chunked."""
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return
        if answer.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line(), 16):
                yield self._exactly(size)
                self._exactly(2)
            while self._line():
                pass
        elif "content-length" in answer.headers:
            left = int(answer.headers["content-length"])
            while left:
                piece = self._received.read1(min(left, PIECE))
                if not piece:
                    raise ProtocolError(f"the server left {left} bytes before the end of the body")
                left -= len(piece)
                yield piece
        else:
            while piece := self._received.read1(PIECE):
                yield piece

    def document(self, answer: Answer) -> Document:
        """The body, which is JSON."""
        result: Document = json.loads(b"".join(self.body(answer)))
        return result

    def _line(self) -> str:
        line = self._received.readline(PIECE)
        if not line.endswith(b"\r\n"):
            raise ProtocolError("the server left within an answer" if line else "the server left without an answer")
        return line[:-2].decode("latin-1")

    def _exactly(self, size: int) -> bytes:
        data = self._received.read(size)
        if len(data) != size:
            raise ProtocolError("the server left within a chunk")
        return data


def pattern(size: int) -> Iterator[bytes]:
    """`size` bytes of 0…255 repeated, in pieces."""
    for start in range(0, size, PIECE):
        yield PATTERN[: min(PIECE, size - start)]


def request(options: argparse.Namespace) -> Document:
    """`count` equal requests on one connection; the answers."""
    answers = []
    with Connection(options.url, options.timeout) as connection:
        for _ in range(options.count):
            length = [f"Content-Length: {options.size}"] if options.size else []
            connection.send(connection.head(options.method, *options.header, *length))
            for piece in pattern(options.size):
                connection.send(piece)
            answer = connection.answer()
            while answer.status in (100, 103):
                answer = connection.answer()
            content = b"".join(connection.body(answer, options.method))
            answers.append({"status": answer.status, "headers": answer.headers, "body": _readable(content)})
    return {"answers": answers}


def _readable(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return content[:4096].decode("latin-1")


def pipeline(options: argparse.Namespace) -> Document:
    """All requests in one write: GET, HEAD, a POST with a length and one in chunks by turns."""
    turns = [
        ("GET", [], b""),
        ("HEAD", [], b""),
        ("POST", ["Content-Length: 5"], b"hello"),
        ("PUT", ["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
    ]
    answers = []
    with Connection(options.url, options.timeout) as connection:
        sent = [(index, *turns[index % len(turns)]) for index in range(options.count)]
        connection.send(
            b"".join(connection.head(method, f"X-Index: {i}", *headers) + body for i, method, headers, body in sent)
        )
        for index, method, _, _ in sent:
            answer = connection.answer()
            content = b"".join(connection.body(answer, method))
            answers.append(
                {"index": index, "method": method, "status": answer.status, "body": _readable(content)},
            )
    return {"answers": answers}


def chunks(options: argparse.Namespace) -> Document:
    """Read /chunks; `lag` is the longest time a line took from the server's write to here."""
    arrivals: list[Document] = []
    with Connection(options.url, options.timeout) as connection:
        connection.send(connection.head("GET"))
        answer = connection.answer()
        rest = b""
        for piece in connection.body(answer):
            arrived = time.monotonic()
            *lines, rest = (rest + piece).split(b"\n")
            arrivals += [{**json.loads(line), "arrived": arrived} for line in lines]
    lag = max(line["arrived"] - line["sent"] for line in arrivals)
    return {"status": answer.status, "lines": arrivals, "lag": lag}


def upload_chunks(options: argparse.Namespace) -> Document:
    """Write `count` chunks of `size` bytes, `delay` seconds apart, to /upload?stamps=1.

    `lag` is the longest time from writing a chunk until the server had all bytes up to its end.
    """
    sent = []
    with Connection(options.url, options.timeout) as connection:
        connection.send(connection.head("POST", "Transfer-Encoding: chunked"))
        for index in range(options.count):
            if index:
                time.sleep(options.delay)
            connection.send(b"%x\r\n%b\r\n" % (options.size, b"x" * options.size))
            sent.append(time.monotonic())
        connection.send(b"0\r\n\r\n")
        answer = connection.answer()
        seen = connection.document(answer)
    total = 0
    arrivals: list[float] = []
    for stamp, size in seen["stamps"]:
        total += size
        arrivals += [stamp] * (total // options.size - len(arrivals))
    lag = max(arrived - left for arrived, left in zip(arrivals, sent, strict=True))
    return {"status": answer.status, "size": seen["size"], "lag": lag}


def duplex(options: argparse.Namespace) -> Document:
    """Write a chunk, wait for its echo, `count` times, all inside one request to /duplex."""
    trips = []
    with Connection(options.url, options.timeout) as connection:
        connection.send(connection.head("POST", "Transfer-Encoding: chunked"))
        echo: Iterator[bytes] = iter(())
        answer = Answer(0, {})
        for index in range(options.count):
            text = f"message {index}".encode()
            began = time.monotonic()
            connection.send(b"%x\r\n%b\r\n" % (len(text), text))
            if not index:
                answer = connection.answer()
                echo = connection.body(answer)
            received = b""
            while len(received) < len(text):
                received += next(echo)
            if received != text:
                raise ProtocolError(f"{received!r} came back for {text!r}")
            trips.append(time.monotonic() - began)
        connection.send(b"0\r\n\r\n")
        rest = b"".join(echo)
    return {"status": answer.status, "trips": trips, "rest": len(rest)}


def expect(options: argparse.Namespace) -> Document:
    """Announce a body, wait for 100 Continue or a final answer, and send the body only after the former."""
    with Connection(options.url, options.timeout) as connection:
        began = time.monotonic()
        connection.send(connection.head("POST", f"Content-Length: {options.size}", "Expect: 100-continue"))
        answer = connection.answer()
        continued, waited = answer.status == 100, time.monotonic() - began
        if continued:
            for piece in pattern(options.size):
                connection.send(piece)
            answer = connection.answer()
        content = b"".join(connection.body(answer))
    return {"continued": continued, "waited": waited, "status": answer.status, "body": _readable(content)}


def download(options: argparse.Namespace) -> Document:
    """Read a body of any size in constant memory; `intact` says whether it is the pattern."""
    size, intact, digest = 0, True, hashlib.sha256()
    with Connection(options.url, options.timeout) as connection:
        connection.send(connection.head("GET"))
        answer = connection.answer()
        for piece in connection.body(answer):
            start = size % 256
            intact &= PATTERN.startswith(piece, start)
            size += len(piece)
            digest.update(piece)
    return {"status": answer.status, "size": size, "intact": intact, "sha256": digest.hexdigest()}


def upload(options: argparse.Namespace) -> Document:
    """Send a body of any size in constant memory; `intact` compares what the server hashed."""
    digest = hashlib.sha256()
    framing = "Transfer-Encoding: chunked" if options.chunked else f"Content-Length: {options.size}"
    with Connection(options.url, options.timeout) as connection:
        connection.send(connection.head("POST", framing))
        for piece in pattern(options.size):
            digest.update(piece)
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if options.chunked else piece)
        if options.chunked:
            connection.send(b"0\r\n\r\n")
        answer = connection.answer()
        content = _readable(b"".join(connection.body(answer)))
    seen = content if isinstance(content, dict) else {}
    intact = (seen.get("size"), seen.get("sha256")) == (options.size, digest.hexdigest())
    return {"status": answer.status, "size": seen.get("size"), "intact": intact, "sha256": digest.hexdigest()}


def websocket(options: argparse.Namespace) -> Document:
    """Text, binary, fragments and a ping over one WebSocket, then a closing handshake."""
    echoed = 0
    with connect(options.url, open_timeout=options.timeout, compression=None, max_size=None, proxy=None) as peer:
        for index in range(options.count):
            text = f"message {index}"
            binary = index.to_bytes(4, "big") * max(1, options.size // 4)
            for message in (text, binary, ["frag", "men", "ted"]):
                peer.send(message)
                expected = "".join(message) if isinstance(message, list) else message
                if peer.recv(timeout=options.timeout) != expected:
                    raise ProtocolError(f"message {index} came back changed")
                echoed += 1
            if index + 1 < options.count:
                time.sleep(options.delay)
        answered = peer.ping().wait(options.timeout)
    return {"echoed": echoed, "pong": answered, "close_code": peer.close_code}


COMMANDS: dict[str, Callable[[argparse.Namespace], Document]] = {
    "request": request,
    "pipeline": pipeline,
    "chunks": chunks,
    "upload-chunks": upload_chunks,
    "duplex": duplex,
    "expect": expect,
    "download": download,
    "upload": upload,
    "websocket": websocket,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="HTTP/1.1 clients for tests")
    result.add_argument("command", choices=COMMANDS)
    result.add_argument("url")
    result.add_argument("--method", default="GET")
    result.add_argument("--header", action="append", default=[], help="NAME: VALUE")
    result.add_argument("--size", type=int, default=0, help="bytes of the body, of a chunk or of a message")
    result.add_argument("--count", type=int, default=1)
    result.add_argument("--delay", type=float, default=0.1, help="seconds between two pieces")
    result.add_argument("--chunked", action="store_true", help="upload without a length")
    result.add_argument("--timeout", type=float, default=30, help="seconds for a connect, a read or a write")
    return result


def main() -> int:
    """Run one command; the exit code."""
    options = parser().parse_args()
    try:
        document = COMMANDS[options.command](options)
    except (OSError, ValueError, ProtocolError, websockets.exceptions.WebSocketException) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
