"""What sidecars tell their node about single requests: datagrams on a socket in each pod's directory.

Who sent a report is told by the socket that it came through. What it says is taken for what a hostile pod may say: each
report is checked (protocol/report.py), and their number is bounded.
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

from prometheus_client import Counter

from nginx_mesh.protocol.report import MAX_BYTES, Report, ReportError, read

log = logging.getLogger(__name__)

SOCKET = "report.sock"

# How many reports a second a pod may send, and how many at once.
_RATE = 1000.0
_BURST = 2000.0
# How many datagrams are read in one turn of the event loop.
_TURN = 64

_dropped = Counter("nginx_mesh_reports_dropped_total", "Reports of sidecars that were not taken.", ["reason"])
_malformed = _dropped.labels("malformed")
_too_many = _dropped.labels("rate")


@dataclass(slots=True)
class _Pod:
    socket: socket.socket
    path: Path
    budget: float = _BURST
    at: float = 0.0

    def within_rate(self, now: float) -> bool:
        """Whether one more report is within the pod's rate."""
        self.budget = min(_BURST, self.budget + (now - self.at) * _RATE)
        self.at = now
        if self.budget < 1:
            return False
        self.budget -= 1
        return True


class ReportSockets:
    """The report sockets of a node's pods. `received(uid, report)` is called on the event loop that opened them."""

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
        """Close the sockets of all other pods."""
        for uid in self._pods.keys() - uids:
            pod = self._pods.pop(uid)
            asyncio.get_running_loop().remove_reader(pod.socket)
            pod.socket.close()

    def _read(self, uid: str, pod: _Pod) -> None:
        for _ in range(_TURN):
            try:
                datagram = pod.socket.recv(MAX_BYTES + 1)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("the reports of pod %s cannot be read: %s", uid, error)
                return
            if not pod.within_rate(self._clock()):
                _too_many.inc()
                continue
            try:
                report = read(datagram)
            except ReportError as error:
                _malformed.inc()
                log.debug("pod %s sent what is no report: %s", uid, error)
                continue
            self._received(uid, report)
