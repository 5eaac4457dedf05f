"""A server for counting what reaches it: answers cost it little, and are what the request asks for.

HTTP/1.1 on `--port`: `/STATUS/SIZE[/MS]` is answered with that status and so many bytes, after so many milliseconds.
TCP on `--tcp`: a connection begins with two numbers of 8 bytes, big-endian: how many bytes follow from the caller, and
how many it wants; it gets them when the server has all of its own, then the connection ends.

It prints `{"name": …, "port": …}` when it listens. SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from functools import cache

PIECE = 64 * 1024


@cache
def answer(status: int, size: int) -> bytes:
    """A whole answer; statuses that have no body have none."""
    body = b"" if status in (204, 304) else b"x" * size
    length = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % size
    return b"HTTP/1.1 %d Status\r\n%bContent-Type: text/plain\r\n\r\n%b" % (status, length, body)


class Server:
    """All connections, in one loop."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, socket.socket, bytes]] = []
        self._numbers = itertools.count()

    def listen(self, port: int, accepted: Callable[[socket.socket], None]) -> int:
        """Take connections; returns the port."""
        listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, lambda: accepted(listener.accept()[0]))
        return int(listener.getsockname()[1])

    def http(self, connection: socket.socket) -> None:
        """Serve HTTP on a connection."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pending = bytearray()

        def readable() -> None:
            received = self._receive(connection)
            if received is None:
                return
            pending.extend(received)
            while (end := pending.find(b"\r\n\r\n")) >= 0:
                status, size, *delay = map(int, pending[: pending.index(b" HTTP/")].split(b"/")[1:])
                del pending[: end + 4]
                if delay:
                    due = time.monotonic() + delay[0] / 1000
                    heapq.heappush(self._due, (due, next(self._numbers), connection, answer(status, size)))
                else:
                    connection.sendall(answer(status, size))

        self._selector.register(connection, selectors.EVENT_READ, readable)

    def tcp(self, connection: socket.socket) -> None:
        """Serve the counted exchange on a connection."""
        head = bytearray()
        taken = 0

        def readable() -> None:
            nonlocal taken
            received = self._receive(connection)
            if received is None:
                return
            head.extend(received[: 16 - len(head)])
            taken += len(received)
            if len(head) < 16:
                return
            theirs, ours = struct.unpack(">QQ", head)
            if taken == 16 + theirs:
                connection.sendall(bytes(ours))
                self._selector.unregister(connection)
                connection.close()

        self._selector.register(connection, selectors.EVENT_READ, readable)

    def run(self) -> None:
        """Serve until the process is ended."""
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, _ in self._selector.select(wait):
                key.data()
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, connection, content = heapq.heappop(self._due)
                if connection.fileno() >= 0:
                    connection.sendall(content)

    def _receive(self, connection: socket.socket) -> bytes | None:
        try:
            received = connection.recv(PIECE)
        except ConnectionError:
            received = b""
        if received:
            return received
        self._selector.unregister(connection)
        connection.close()
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default=os.environ.get("POD_NAME", ""))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tcp", type=int, default=0)
    arguments = parser.parse_args()
    server = Server()
    port = server.listen(arguments.port, server.http)
    server.listen(arguments.tcp, server.tcp)
    print(json.dumps({"name": arguments.name, "port": port}), flush=True)
    server.run()


if __name__ == "__main__":
    main()
