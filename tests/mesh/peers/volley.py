"""A load generator that counts: so many requests or connections, as fast as they go, and exactly what became of them.

    volley.py http 10.96.0.1 80 --requests 100000 --connections 16 /200/100 /404/9 /503/0
    volley.py tcp 10.96.0.1 90 --requests 200 --connections 16

HTTP/1.1 on kept connections, one request at a time on each, targets by turns; nothing is ever retried. A connection
that ends is made anew, and its request has failed. TCP as target.py has it, with sizes that differ by connection.

One JSON document goes to stdout: `statuses` (answers by status), `failed`, `sent` and `received` (bytes, all of them),
`opened` (connections), `quantiles_ms` (p50, p90, p99), and `done`: pairs of CLOCK_MONOTONIC in seconds and how many had
been answered then, each 50 ms.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from typing import Any

PIECE = 256 * 1024
INTERVAL = 0.05


class Volley:
    """The loop; subclasses say what goes over a connection."""

    def __init__(self, address: tuple[str, int], requests: int) -> None:
        self.address = address
        self.requests = requests
        self.started = 0
        self.sent = self.received = self.opened = self.failed = 0
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.done: list[tuple[float, int]] = []
        self.selector = selectors.DefaultSelector()

    def open(self) -> socket.socket:
        """A new connection."""
        connection = socket.create_connection(self.address, timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened += 1
        return connection

    def start(self) -> None:
        """Begin on one more connection, if anything is left to do."""
        raise NotImplementedError

    def run(self, connections: int) -> dict[str, Any]:
        """Everything, to the last answer."""
        for _ in range(connections):
            self.start()
        told = 0.0
        while self.selector.get_map():
            for key, _ in self.selector.select():
                key.data()
            now = time.monotonic()
            if now >= told:
                told = now + INTERVAL
                self.done.append((now, len(self.latencies)))
        ordered = sorted(self.latencies)
        return {
            "statuses": self.statuses,
            "failed": self.failed,
            "sent": self.sent,
            "received": self.received,
            "opened": self.opened,
            "quantiles_ms": [1000 * ordered[int(len(ordered) * q)] for q in (0.5, 0.9, 0.99)] if ordered else [],
            "done": self.done,
        }


class Http(Volley):
    """Requests by turns."""

    def __init__(self, address: tuple[str, int], requests: int, targets: list[str]) -> None:
        super().__init__(address, requests)
        self._requests = [f"GET {target} HTTP/1.1\r\nHost: counted\r\n\r\n".encode() for target in targets]

    def start(self) -> None:
        if self.started >= self.requests:
            return
        connection = self.open()
        pending = b""
        began = 0.0

        def send() -> None:
            nonlocal began
            if self.started >= self.requests:
                self.selector.unregister(connection)
                connection.close()
                return
            request = self._requests[self.started % len(self._requests)]
            self.started += 1
            began = time.monotonic()
            connection.sendall(request)
            self.sent += len(request)

        def readable() -> None:
            nonlocal pending
            try:
                received = connection.recv(PIECE)
            except ConnectionError:
                received = b""
            if not received:
                self.failed += 1
                self.selector.unregister(connection)
                connection.close()
                self.start()
                return
            self.received += len(received)
            pending += received
            end = pending.find(b"\r\n\r\n")
            if end < 0:
                return
            status = int(pending[9:12])
            at = pending.lower().find(b"content-length: ", 0, end)
            length = int(pending[at + 16 : pending.index(b"\r\n", at)]) if at >= 0 else 0
            if len(pending) < end + 4 + length:
                return
            pending = b""
            self.statuses[status] += 1
            self.latencies.append(time.monotonic() - began)
            send()

        self.selector.register(connection, selectors.EVENT_READ, readable)
        with suppress(ConnectionError):  # it reads as an end
            send()


class Tcp(Volley):
    """Exchanges, each on a connection of its own."""

    def start(self) -> None:
        if self.started >= self.requests:
            return
        number = self.started
        self.started += 1
        mine, theirs = number * 37 % 5000, number * number % 90000
        connection = self.open()
        began = time.monotonic()
        content = struct.pack(">QQ", mine, theirs) + bytes(mine)
        connection.sendall(content)
        self.sent += len(content)
        left = theirs

        def readable() -> None:
            nonlocal left
            try:
                received = connection.recv(PIECE)
            except ConnectionError:
                received = b""
            self.received += len(received)
            left -= len(received)
            if received:
                return
            self.failed += left > 0
            self.latencies.append(time.monotonic() - began)
            self.selector.unregister(connection)
            connection.close()
            self.start()

        self.selector.register(connection, selectors.EVENT_READ, readable)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", choices=["http", "tcp"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("targets", nargs="*", default=["/200/100"])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=16)
    arguments = parser.parse_intermixed_args()
    address = (arguments.host, arguments.port)
    volley: Volley = (
        Http(address, arguments.requests, arguments.targets)
        if arguments.protocol == "http"
        else Tcp(address, arguments.requests)
    )
    print(json.dumps(volley.run(arguments.connections)), flush=True)


if __name__ == "__main__":
    main()
