"""The node's end of a sidecar's report socket: takes what comes, and counts it."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from bench.topology import PROXY_UID

_MOST_BYTES = 65536


class ReportSink:
    """A datagram socket at `path` that the sidecar may send to. `taken` datagrams have come so far."""

    def __init__(self, path: Path) -> None:
        self.taken = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        os.chown(path, PROXY_UID, PROXY_UID)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more."""
        # Closing alone does not wake who reads.
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while self._socket.recv(_MOST_BYTES):
            self.taken += 1
