"""The HTTP peers tell the truth: what they report is what went over the wire."""

from __future__ import annotations

import hashlib
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from .conftest import PEERS, Call, Start


@pytest.fixture
def url(start: Start) -> str:
    return f"http://127.0.0.1:{start('http_server', '--name', 'web-1').port}"


def raw(url: str, data: bytes) -> bytes:
    """Send bytes, and read until the server closes."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as peer:
        peer.sendall(data)
        received = b""
        while piece := peer.recv(65536):
            received += piece
        return received


def test_echo_reports_an_unusual_method_its_headers_and_the_body(url: str, call: Call) -> None:
    options = ["--method", "PURGE", "--header", "X-Odd_Name: b", "--header", "X-Odd_Name: c", "--size", 100_000]
    [answer] = call("http_client", "request", f"{url}/echo?q=%2F", *options)["answers"]

    body = answer["body"]
    assert answer["headers"]["x-served-by"] == body["name"] == "web-1"
    assert (body["method"], body["target"], body["version"]) == ("PURGE", "/echo?q=%2F", "HTTP/1.1")
    assert [value for name, value in body["headers"] if name == "X-Odd_Name"] == ["b", "c"]
    pattern = (bytes(range(256)) * 400)[:100_000]
    assert (body["size"], body["sha256"]) == (100_000, hashlib.sha256(pattern).hexdigest())


def test_one_connection_serves_many_requests(url: str, call: Call) -> None:
    answers = call("http_client", "request", f"{url}/echo", "--count", 3)["answers"]

    assert len({answer["body"]["peer"] for answer in answers}) == 1


def test_pipelined_requests_are_answered_in_order(url: str, call: Call) -> None:
    answers = call("http_client", "pipeline", f"{url}/echo", "--count", 9)["answers"]

    assert [answer["status"] for answer in answers] == [200] * 9
    with_body = [answer for answer in answers if answer["method"] != "HEAD"]
    assert [answer["body"]["method"] for answer in with_body] == [answer["method"] for answer in with_body]
    assert [dict(answer["body"]["headers"])["X-Index"] for answer in with_body] == [
        str(answer["index"]) for answer in with_body
    ]
    assert {answer["body"]["size"] for answer in answers if answer["method"] in ("POST", "PUT")} == {5}


def test_chunks_arrive_when_they_are_sent(url: str, call: Call) -> None:
    seen = call("http_client", "chunks", f"{url}/chunks?n=4&delay=0.3")

    assert [line["index"] for line in seen["lines"]] == [0, 1, 2, 3]
    assert seen["lines"][3]["arrived"] - seen["lines"][0]["arrived"] > 0.6
    assert seen["lag"] < 0.6


def test_uploaded_chunks_arrive_when_they_are_sent(url: str, call: Call) -> None:
    seen = call("http_client", "upload-chunks", f"{url}/upload?stamps=1", "--count", 4, "--size", 10, "--delay", 0.3)

    assert (seen["status"], seen["size"]) == (200, 40)
    assert seen["lag"] < 0.6


def test_duplex_answers_within_the_request(url: str, call: Call) -> None:
    seen = call("http_client", "duplex", f"{url}/duplex", "--count", 5)

    assert (seen["status"], len(seen["trips"]), seen["rest"]) == (200, 5, 0)


def test_a_body_waits_for_100_continue(url: str, call: Call) -> None:
    seen = call("http_client", "expect", f"{url}/upload", "--size", 70_000)

    assert (seen["continued"], seen["status"], seen["body"]["size"]) == (True, 200, 70_000)


def test_a_refused_body_is_never_sent(url: str, call: Call) -> None:
    seen = call("http_client", "expect", f"{url}/reject", "--size", 70_000)

    assert (seen["continued"], seen["status"]) == (False, 403)


@pytest.mark.parametrize("framing", [[], ["--chunked"]])
def test_uploads_of_any_framing_are_hashed(url: str, call: Call, framing: list[str]) -> None:
    seen = call("http_client", "upload", f"{url}/upload", "--size", 5_000_001, *framing)

    assert (seen["status"], seen["size"], seen["intact"]) == (200, 5_000_001, True)


def test_downloads_are_compared_with_the_pattern(url: str, call: Call) -> None:
    seen = call("http_client", "download", f"{url}/bytes/5000001")

    assert (seen["status"], seen["size"], seen["intact"]) == (200, 5_000_001, True)
    pattern = (bytes(range(256)) * 20_000)[:5_000_001]
    assert seen["sha256"] == hashlib.sha256(pattern).hexdigest()


def test_a_download_that_is_not_the_pattern_is_not_intact(url: str, call: Call) -> None:
    assert call("http_client", "download", f"{url}/health")["intact"] is False


def test_large_bodies_take_constant_memory(start: Start, call: Call) -> None:
    port, pid = start("http_server")
    call("http_client", "upload", f"http://127.0.0.1:{port}/upload", "--size", 300_000_000)
    call("http_client", "download", f"http://127.0.0.1:{port}/bytes/300000000")

    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 100_000


def test_websocket_messages_of_every_kind_come_back(url: str, call: Call) -> None:
    seen = call("http_client", "websocket", f"{url.replace('http', 'ws')}/ws", "--count", 3, "--size", 200_000)

    assert seen == {"echoed": 9, "pong": True, "close_code": 1000}


def test_server_sent_events_are_framed(url: str) -> None:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/sse?n=2&delay=0")
    response = connection.getresponse()

    assert response.headers["content-type"] == "text/event-stream"
    events = response.read().decode().split("\n\n")
    assert [event.split("\n")[0] for event in events] == ["id: 0", "id: 1", ""]
    connection.close()


@pytest.mark.parametrize("status", [204, 304, 404, 503])
def test_statuses_keep_the_connection(url: str, call: Call, status: int) -> None:
    answers = call("http_client", "request", f"{url}/status/{status}", "--count", 2)["answers"]

    assert [answer["status"] for answer in answers] == [status, status]


def test_http_1_0_ends_with_the_connection_unless_kept_alive(url: str) -> None:
    answer = raw(url, b"GET /chunks?n=2&delay=0 HTTP/1.0\r\n\r\n")
    assert b"chunked" not in answer.lower()
    assert answer.count(b'"index"') == 2

    kept = raw(url, b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /health HTTP/1.0\r\n\r\n")
    assert kept.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
        (b"G@T / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /echo HTTP/1.1\r\nName : x\r\n\r\n", b"400"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_what_two_servers_could_read_differently_is_refused(url: str, request_text: bytes, status: bytes) -> None:
    assert raw(url, request_text).startswith(b"HTTP/1.1 " + status)


def test_h2c_streams_run_side_by_side(url: str, call: Call) -> None:
    began = time.monotonic()
    answers = call("h2_client", f"{url}/slow?s=1", "--streams", 5)["answers"]

    assert [answer["status"] for answer in answers] == [200] * 5
    assert time.monotonic() - began < 4


def test_h2c_bodies_are_larger_than_the_window(url: str, call: Call) -> None:
    answers = call("h2_client", f"{url}/echo", "--streams", 3, "--size", 1_000_000)["answers"]

    assert [(answer["body"]["version"], answer["body"]["size"]) for answer in answers] == [("HTTP/2.0", 1_000_000)] * 3
    assert answers[0]["body"]["sha256"] == hashlib.sha256(b"x" * 1_000_000).hexdigest()


def test_an_error_fault_begins_after_its_count_and_can_be_set_while_running(url: str, call: Call) -> None:
    call("http_client", "request", f"{url}/fault?kind=error&after=2")
    answers = call("http_client", "request", f"{url}/echo", "--count", 4)["answers"]
    assert [answer["status"] for answer in answers] == [200, 200, 500, 500]

    call("http_client", "request", f"{url}/fault?kind=none")
    [answer] = call("http_client", "request", f"{url}/echo")["answers"]
    assert answer["status"] == 200


def test_a_closing_fault_ends_the_connection_without_an_answer(start: Start, call: Call) -> None:
    port = start("http_server", "--fault", "close").port

    failure = call("http_client", "request", f"http://127.0.0.1:{port}/echo", failing=True)
    assert failure["error"] == "ProtocolError: the server left without an answer"


def test_a_hanging_fault_says_nothing(start: Start, call: Call) -> None:
    port = start("http_server", "--fault", "hang").port

    failure = call("http_client", "request", f"http://127.0.0.1:{port}/echo", "--timeout", 0.5, failing=True)
    assert failure["error"].startswith("TimeoutError")


def test_a_refusing_fault_closes_the_port_after_its_count(start: Start, call: Call) -> None:
    port = start("http_server", "--fault", "refuse:2").port

    answers = call("http_client", "request", f"http://127.0.0.1:{port}/echo", "--count", 2)["answers"]
    assert [answer["status"] for answer in answers] == [200, 200]
    failure = call("http_client", "request", f"http://127.0.0.1:{port}/echo", failing=True)
    assert failure["error"].startswith("ConnectionRefusedError")


def test_sigterm_lets_the_last_answer_out() -> None:
    process = subprocess.Popen(
        [sys.executable, str(PEERS / "http_server.py"), "--host", "127.0.0.1", "--port", "0"],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(b'"port": ')[1].rstrip(b"}\n"))
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/slow?s=0.5")
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 200
        assert process.wait(timeout=5) == 0
    finally:
        process.kill()
        process.communicate()
