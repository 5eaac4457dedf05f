"""The client of HTTP servers on unix sockets, against real ones: friendly, broken and hostile."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nginx_mesh.cli.errors import ApiError, ControlPlaneUnreachableError
from nginx_mesh.cli.unix_http import UnixHttpClient

from .unixserver import HttpServer, Refused, sending

HEAD = b"HTTP/1.1 200 OK\r\n"
SILENCE_SECONDS = 0.2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_a_request_carries_its_query_and_body_and_the_answer_is_decoded(path: Path) -> None:
    with HttpServer({"POST /things": {"made": [1, 2]}, "GET /things": None}).listening(path) as server:
        client = UnixHttpClient(path)
        made = client.request("POST", "/things", {"name": "ä"}, query={"of": "a/b c", "none": None, "count": 3})
        assert made == {"made": [1, 2]}
        assert client.get("/things", limit=None) is None
    assert server.requests == [("POST", "/things?of=a%2Fb+c&count=3", {"name": "ä"}), ("GET", "/things", None)]


def test_an_empty_answer_is_none(path: Path) -> None:
    with HttpServer({"DELETE /things/1": b""}).listening(path):
        assert UnixHttpClient(path).request("DELETE", "/things/1") is None


@pytest.mark.parametrize(
    ("body", "message", "reason", "details"),
    [
        (
            json.dumps({"message": "2 faults", "reason": "Invalid", "details": ["a", "b"]}).encode(),
            "2 faults",
            "Invalid",
            ["a", "b"],
        ),
        (b'{"message": "unknown agent"}', "unknown agent", "", []),
        (b"404: Not Found", "404: Not Found", "InternalError", []),
        (b"", "HTTP 422", "InternalError", []),
        (b'["not", "a", "status"]', '["not", "a", "status"]', "InternalError", []),
        (b"\xff", "\ufffd", "InternalError", []),
    ],
)
def test_a_refusal_is_told_with_what_the_server_says(
    path: Path, body: bytes, message: str, reason: str, details: list[str]
) -> None:
    with HttpServer({"GET /": Refused(422, body)}).listening(path), pytest.raises(ApiError) as refused:
        UnixHttpClient(path).get("/")
    assert (str(refused.value), refused.value.reason, refused.value.details) == (message, reason, details)


def test_a_refusal_with_very_many_faults_is_told_whole(path: Path) -> None:
    details = [f"document {number}: its name is taken" for number in range(100_000)]
    body = json.dumps({"message": "faults", "reason": "Invalid", "details": details}).encode()
    with HttpServer({"POST /": Refused(422, body)}).listening(path), pytest.raises(ApiError) as refused:
        UnixHttpClient(path).request("POST", "/", {})
    assert refused.value.details == details


def test_of_a_refusal_without_end_only_the_beginning_is_told(path: Path) -> None:
    with HttpServer({"GET /": Refused(500, b"x" * 1000)}).listening(path), pytest.raises(ApiError) as refused:
        UnixHttpClient(path, max_bytes=10).get("/")
    assert refused.value.message == "x" * 10


def test_a_stream_that_is_refused_raises_as_other_requests_do(path: Path) -> None:
    with HttpServer({}).listening(path), pytest.raises(ApiError, match="404: Not Found"):
        list(UnixHttpClient(path).stream("/log"))


def test_where_nobody_listens_the_cause_of_the_error_is_the_systems(path: Path) -> None:
    with pytest.raises(ControlPlaneUnreachableError) as missing:
        UnixHttpClient(path).get("/")
    assert isinstance(missing.value.__cause__, FileNotFoundError)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        with pytest.raises(ControlPlaneUnreachableError, match="refused"):
            UnixHttpClient(path).get("/")


@pytest.mark.parametrize(
    "begun",
    [b"", HEAD + b"Content-Length: 5\r\n\r\n[1", b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nsorry"],
    ids=["before the answer", "within the answer", "within a refusal"],
)
def test_a_server_that_falls_silent_is_given_up_after_the_timeout(path: Path, begun: bytes) -> None:
    done = threading.Event()

    def fall_silent(connection: socket.socket) -> None:
        connection.sendall(begun)
        done.wait(10)

    with sending(path, fall_silent):
        start = time.monotonic()
        with pytest.raises(ControlPlaneUnreachableError, match="timed out"):
            UnixHttpClient(path, SILENCE_SECONDS).get("/")
        assert SILENCE_SECONDS <= time.monotonic() - start < 5
        done.set()


def test_a_stream_that_falls_silent_is_given_up_after_what_came(path: Path) -> None:
    done = threading.Event()

    def fall_silent(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        done.wait(10)

    with sending(path, fall_silent):
        chunks = UnixHttpClient(path, SILENCE_SECONDS).stream("/log")
        assert next(chunks) == b"one"
        with pytest.raises(ControlPlaneUnreachableError, match="timed out"):
            next(chunks)
        done.set()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        HEAD + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
        HEAD + b"X: x\r\n" * 1000 + b"\r\n",
        HEAD + b"Content-Length: 100\r\n\r\n[1, 2",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Content-Length: 2\r\n\r\n[1",
        HEAD + b"Content-Length: 2\r\n\r\n\xff\xff",
        HEAD + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,
    ],
    ids=["nothing", "no HTTP", "long header", "many headers", "cut", "no chunk", "no JSON", "no text", "deep"],
)
def test_an_answer_that_is_broken_is_as_good_as_none(path: Path, sent: bytes) -> None:
    def send(connection: socket.socket) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)

    with sending(path, send), pytest.raises(ControlPlaneUnreachableError):
        UnixHttpClient(path, 5).get("/")


def test_a_document_of_more_than_the_most_bytes_is_refused_and_one_of_as_many_is_not(path: Path) -> None:
    with HttpServer({"GET /long": b'"' + b"x" * 99 + b'"', "GET /short": b'"' + b"x" * 98 + b'"'}).listening(path):
        client = UnixHttpClient(path, max_bytes=100)
        assert len(client.get("/short")) == 98
        with pytest.raises(ControlPlaneUnreachableError, match="GET /long has more than 100 bytes"):
            client.get("/long")


def test_a_document_without_end_is_not_read_to_the_end(path: Path) -> None:
    sent = 0

    def send(connection: socket.socket) -> None:
        nonlocal sent
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(HEAD + b"\r\n")
            while sent < 1 << 30:
                sent += connection.send(b" " * 65536)

    with sending(path, send), pytest.raises(ControlPlaneUnreachableError, match="more than 100000 bytes"):
        UnixHttpClient(path, 5, max_bytes=100_000).get("/")
    assert sent < 10 << 20


def test_a_stream_is_yielded_as_it_comes(path: Path) -> None:
    read = threading.Event()

    def send(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert read.wait(10)
        connection.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    with sending(path, send):
        chunks = UnixHttpClient(path, 10).stream("/log", follow="true")
        assert next(chunks) == b"one"
        read.set()
        assert list(chunks) == [b"two"]


def test_a_stream_that_nobody_reads_on_is_closed(path: Path) -> None:
    closed = threading.Event()

    def send(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        if connection.recv(1) == b"":
            closed.set()

    with sending(path, send):
        chunks = UnixHttpClient(path).stream("/log")
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        assert closed.wait(10)
