"""An HTTP/1.1 and h2c server that reads a request to its end, notes it, then fails: `faulty_server.py --deliveries F`.

Each request is a line `METHOD PATH` in the file, written before anything is answered, so that a test can count how
often one was delivered, to however many servers write to it. The first part of the path says what follows:

| path | |
|---|---|
| `/close` | the connection ends in order |
| `/reset` | the connection is reset |
| `/half` | the connection ends within the header of the answer (HTTP/2: of its frame) |
| `/begun` | the connection ends after the header and a byte of the body |
| `/hang` | nothing more, until the caller leaves |
| `/ok` | 200 |
| `/slow` | 200 after a second (HTTP/1.1) |

It prints `{"name": …, "port": …}` when it listens.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import struct
import threading
import time
from pathlib import Path

import h2.config
import h2.connection
import h2.events

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
HALF = {1: b"HTTP/1.1 200 OK\r\nContent-Le", 2: b"\x00\x00\x20\x01\x04\x00\x00\x00\x01\x88"}


class Gone(Exception):  # noqa: N818 - nothing is wrong
    """The caller left."""


class Connection:
    """One connection of a caller."""

    def __init__(self, peer: socket.socket, deliveries: Path) -> None:
        self._peer = peer
        self._deliveries = deliveries
        self._buffer = b""

    def serve(self) -> None:
        """Serve until it ends."""
        with self._peer:
            try:
                self._fill(len(PREFACE[:3]))
                if self._buffer.startswith(PREFACE[:3]):
                    self._serve_http2()
                else:
                    while self._serve_http1():
                        pass
            except (Gone, ConnectionError):
                pass

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            received = self._peer.recv(65536)
            if not received:
                raise Gone
            self._buffer += received

    def _serve_http1(self) -> bool:
        while b"\r\n\r\n" not in self._buffer:
            self._fill(len(self._buffer) + 1)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        self._fill(size)
        self._buffer = self._buffer[size:]
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        fault = self._note(method, path)
        if fault in ("ok", "slow"):
            time.sleep(fault == "slow")
            self._peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return True
        if fault == "begun":
            self._peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        self._fail(fault, 1)
        return False

    def _serve_http2(self) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        state.initiate_connection()
        requests: dict[int, tuple[str, str]] = {}
        received = self._buffer
        while True:
            for event in state.receive_data(received):
                if isinstance(event, h2.events.RequestReceived):
                    fields = {name.decode(): value.decode() for name, value in event.headers}
                    requests[event.stream_id] = fields[":method"], fields[":path"]
                elif isinstance(event, h2.events.DataReceived):
                    state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    fault = self._note(*requests[event.stream_id])
                    if fault in ("ok", "begun"):
                        state.send_headers(event.stream_id, [(":status", "200"), ("content-type", "text/plain")])
                        state.send_data(event.stream_id, b"2", end_stream=fault == "ok")
                    if fault != "ok":
                        self._peer.sendall(state.data_to_send())
                        return self._fail(fault, 2)
            self._peer.sendall(state.data_to_send())
            received = self._peer.recv(65536)
            if not received:
                return None

    def _note(self, method: str, path: str) -> str:
        with self._deliveries.open("a") as file:
            file.write(f"{method} {path}\n")
        return path.split("/")[1].partition("?")[0]

    def _fail(self, fault: str, version: int) -> None:
        if fault == "half":
            self._peer.sendall(HALF[version])
        elif fault == "reset":
            self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "hang":
            while self._peer.recv(65536):
                pass


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="HTTP server for tests that fails after it has read a request")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--name", default=socket.gethostname())
    parser.add_argument("--deliveries", type=Path, required=True)
    options = parser.parse_args()
    listener = socket.create_server(("", options.port), backlog=1024)
    print(json.dumps({"name": options.name, "port": listener.getsockname()[1]}), flush=True)
    while True:
        connection = Connection(listener.accept()[0], options.deliveries)
        threading.Thread(target=connection.serve, daemon=True).start()


if __name__ == "__main__":
    main()
