"""What sidecars tell their node about single requests: datagrams on a socket in each pod's directory.

Who sent one is told by the socket it came through. What it says is taken for what a hostile pod may say: it is checked,
of bounded size, and of bounded number.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from prometheus_client import Counter

log = logging.getLogger(__name__)

SOCKET = "report.sock"

_MAX_BYTES = 8192
# Of one pod: reports a second, and how many may come at once.
_RATE = 1000.0
_BURST = 2000.0
# Read in one turn of the event loop.
_TURN = 64

_dropped = Counter("nginx_mesh_reports_dropped_total", "Reports of sidecars that were not taken.", ["reason"])
_malformed = _dropped.labels("malformed")
_too_many = _dropped.labels("rate")

Text = Annotated[str, msgspec.Meta(max_length=1536)]
Name = Annotated[str, msgspec.Meta(max_length=512)]
Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]
Microseconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
TraceId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
SpanId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$", max_length=16)]


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that a sidecar sent (`server` 0) or took in (1), as the sidecar's C module tells it.

    `tapped` says that somebody watches. Only one that is in a sampled trace has `trace` and `span`; `parent` is
    empty at a trace's root. Times are microseconds, `start_us` since the epoch. `path` has no query. `client` is the
    caller's address, `destination` what was dialled, `upstream` the last endpoint tried ("ip:port"); `peer_id` the
    SPIFFE ID that the other side proved. `policy` is the TrafficTarget that allowed it, `limited_by` the RateLimit that
    refused or delayed it, `reason` why the sidecar refused it.
    """

    server: Flag
    tapped: Flag
    start_us: Microseconds
    duration_us: Microseconds
    status: Annotated[int, msgspec.Meta(ge=0, le=999)]
    http2: Flag
    mtls: Flag
    tries: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    client_port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    trace: TraceId | None = None
    span: SpanId | None = None
    parent: SpanId | None = None
    grpc: Flag = 0
    grpc_status: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    method: Name = ""
    path: Text = ""
    authority: Name = ""
    user_agent: Name = ""
    client: Name = ""
    destination: Name = ""
    upstream: Name = ""
    peer_id: Name = ""
    cluster: Name = ""
    policy: Name = ""
    limited_by: Name = ""
    reason: Name = ""


class ReportError(Exception):
    """What came is no report."""


_decoder = msgspec.json.Decoder(Report)


def read(datagram: bytes) -> Report:
    """Raises ReportError."""
    if len(datagram) > _MAX_BYTES:
        raise ReportError(f"more than {_MAX_BYTES} bytes")
    try:
        report = _decoder.decode(datagram)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(str(error)) from None
    if (report.trace is None) != (report.span is None):
        raise ReportError("a trace without a span, or a span without a trace")
    if report.trace is not None and (not int(report.trace, 16) or not int(report.span or "0", 16)):
        raise ReportError("an id is zero")
    return report


@dataclass(slots=True)
class _Pod:
    socket: socket.socket
    path: Path
    budget: float = _BURST
    at: float = 0.0

    def may(self, now: float) -> bool:
        """Whether one more report is within the pod's rate."""
        self.budget = min(_BURST, self.budget + (now - self.at) * _RATE)
        self.at = now
        if self.budget < 1:
            return False
        self.budget -= 1
        return True


class ReportSockets:
    """The sockets of a node's pods. `received(uid, report)` is called on the event loop that they are opened on."""

    def __init__(self, received: Callable[[str, Report], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._received = received
        self._clock = clock
        self._pods: dict[str, _Pod] = {}

    def open(self, uid: str, directory: Path, owner: int) -> None:
        """Listen in the directory that a pod's sidecar shares; `owner` is the sidecar's user. Raises OSError.

        Does nothing when that is done. The directory is the sidecar's own: nothing in it is followed.
        """
        if uid in self._pods:
            return
        path = directory / SOCKET
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)
            listening.bind(str(path))
            os.chown(path, owner, owner, follow_symlinks=False)
        except BaseException:
            listening.close()
            raise
        self._pods[uid] = pod = _Pod(listening, path, at=self._clock())
        asyncio.get_running_loop().add_reader(listening, self._read, uid, pod)

    def retain(self, uids: set[str]) -> None:
        """Close all others."""
        for uid in self._pods.keys() - uids:
            pod = self._pods.pop(uid)
            asyncio.get_running_loop().remove_reader(pod.socket)
            pod.socket.close()

    def _read(self, uid: str, pod: _Pod) -> None:
        for _ in range(_TURN):
            try:
                datagram = pod.socket.recv(_MAX_BYTES + 1)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("the reports of pod %s cannot be read: %s", uid, error)
                return
            if not pod.may(self._clock()):
                _too_many.inc()
                continue
            try:
                report = read(datagram)
            except ReportError as error:
                _malformed.inc()
                log.debug("pod %s sent what is no report: %s", uid, error)
                continue
            self._received(uid, report)
