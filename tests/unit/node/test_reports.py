"""Reports of sidecars: what is one, and what a node takes of a pod that sends anything."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.node.reports import ReportSockets
from nginx_mesh.protocol.report import Report, ReportError, read

PLAIN: dict[str, Any] = {
    "server": 1,
    "tapped": 0,
    "start_us": 1_700_000_000_000_000,
    "duration_us": 1500,
    "status": 200,
    "http2": 0,
    "mtls": 1,
    "tries": 1,
    "client_port": 40000,
}
TRACED = {**PLAIN, "trace": "4bf92f3577b34da6a3ce929d0e0e4736", "span": "00f067aa0ba902b7"}


def encoded(**changes: Any) -> bytes:
    return msgspec.json.encode({name: value for name, value in {**TRACED, **changes}.items() if value is not None})


def test_a_report_is_read() -> None:
    report = read(encoded(path="/a", peer_id="spiffe://example.org/x"))
    assert (report.path, report.status, report.trace) == ("/a", 200, TRACED["trace"])
    assert read(encoded(trace=None, span=None)).span is None


@pytest.mark.parametrize(
    "changes",
    [
        {"server": 2},
        {"server": "1"},
        {"status": -1},
        {"status": 1000},
        {"start_us": -1},
        {"start_us": 1 << 60},
        {"duration_us": 1.5},
        {"trace": "4BF92F3577B34DA6A3CE929D0E0E4736"},
        {"trace": "0" * 32},
        {"span": "0" * 16},
        {"span": "00f067aa0ba902b7\n"},
        {"span": None},
        {"trace": None},
        {"parent": "x"},
        {"path": "x" * 2000},
        {"method": ["GET"]},
        {"client_port": 70000},
        {"unknown": 1},
        {"tries": None},
    ],
    ids=str,
)
def test_what_is_no_report_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ReportError):
        read(encoded(**changes))


@pytest.mark.parametrize("datagram", [b"", b"{}", b"[" * 8000, b"\xff", encoded() + b" " * 9000, b"1e999999", b"null"])
def test_neither_is_anything_else(datagram: bytes) -> None:
    with pytest.raises(ReportError):
        read(datagram)


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from(sorted(TRACED)), st.text() | st.integers()).map(
        lambda changes: (
            msgspec.json.encode({**TRACED, **{k: v for k, v in changes.items() if v != 1 << 70}}, enc_hook=str)
            if all(not isinstance(v, int) or abs(v) < 1 << 60 for v in changes.values())
            else b""
        )
    )
)
def test_whatever_comes_gives_a_report_or_a_refusal(datagram: bytes) -> None:
    try:
        assert isinstance(read(datagram), Report)
    except ReportError as error:
        assert str(error)


class Pods:
    """Sockets of pods, on a loop that turns when it is told to."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.received: list[tuple[str, Report]] = []
        self.directory = directory
        self.sockets = ReportSockets(lambda uid, report: self.received.append((uid, report)), lambda: self.now)

    def open(self, uid: str) -> Path:
        directory = self.directory / uid
        directory.mkdir(exist_ok=True)
        self.sockets.open(uid, directory, os.getuid())
        return directory / "report.sock"


def within(directory: Path, scenario: Callable[[Pods], Any]) -> None:
    async def run() -> None:
        pods = Pods(directory)
        try:
            await scenario(pods)
        finally:
            pods.sockets.retain(set())

    asyncio.run(run())


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.setblocking(False)
        yield found


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0.001)


def test_the_socket_tells_who_sent_a_report(tmp_path: Path, sender: socket.socket) -> None:
    async def scenario(pods: Pods) -> None:
        one, two = pods.open("one"), pods.open("two")
        sender.sendto(encoded(path="/a"), str(one))
        sender.sendto(b"garbage", str(one))
        sender.sendto(encoded(path="/b"), str(two))
        await turns()
        assert sorted((uid, report.path) for uid, report in pods.received) == [("one", "/a"), ("two", "/b")]

    within(tmp_path, scenario)


def test_a_pod_that_sends_much_is_heard_at_its_rate(tmp_path: Path, sender: socket.socket) -> None:
    async def scenario(pods: Pods) -> None:
        path = pods.open("loud")
        sent = 0
        while sent < 2500:
            try:
                sender.sendto(encoded(), str(path))
                sent += 1
            except BlockingIOError:
                await turns(1)
        await turns()
        assert len(pods.received) == 2000
        pods.now = 0.05
        for _ in range(5):
            sender.sendto(encoded(), str(path))
        await turns()
        assert len(pods.received) == 2005

    within(tmp_path, scenario)


def test_what_is_in_the_way_is_replaced_and_never_followed(tmp_path: Path, sender: socket.socket) -> None:
    """The directory belongs to the sidecar, and the node is root."""
    target = tmp_path / "precious"
    target.write_text("x")
    target.chmod(0o600)

    async def scenario(pods: Pods) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "report.sock").symlink_to(target)
        path = pods.open("one")
        assert path.is_socket() and target.read_text() == "x"
        sender.sendto(encoded(), str(path))
        await turns()
        assert len(pods.received) == 1

    within(tmp_path, scenario)


def test_a_pod_that_goes_is_heard_no_more_and_one_of_its_name_is(tmp_path: Path, sender: socket.socket) -> None:
    async def scenario(pods: Pods) -> None:
        path = pods.open("one")
        pods.sockets.retain({"other"})
        with pytest.raises(ConnectionRefusedError):
            sender.sendto(encoded(), str(path))
        sender.sendto(encoded(), str(pods.open("one")))
        await turns()
        assert len(pods.received) == 1

    within(tmp_path, scenario)
