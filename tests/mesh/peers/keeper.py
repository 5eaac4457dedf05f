"""One kept connection: `keeper.py HOST 1.1|2`. Each line on stdin is a path to GET; its status is a line on stdout."""

from __future__ import annotations

import http.client
import socket
import sys
from collections.abc import Callable

import h2.connection
import h2.events


def ask_http1(host: str) -> Callable[[str], int]:
    """Asks by HTTP/1.1, and never on another connection."""
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.connect()
    connection.auto_open = False

    def ask(path: str) -> int:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return ask


def ask_http2(host: str) -> Callable[[str], int]:
    """Asks by HTTP/2 with prior knowledge."""
    peer = socket.create_connection((host, 80), 30)
    state = h2.connection.H2Connection()
    state.initiate_connection()

    def ask(path: str) -> int:
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)]
        state.send_headers(state.get_next_available_stream_id(), fields, end_stream=True)
        status = 0
        while True:
            peer.sendall(state.data_to_send())
            received = peer.recv(65536)
            if not received:
                raise ConnectionError("the server left")
            for event in state.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.StreamEnded):
                    peer.sendall(state.data_to_send())
                    return status

    return ask


if __name__ == "__main__":
    ask = (ask_http2 if sys.argv[2] == "2" else ask_http1)(sys.argv[1])
    for line in sys.stdin:
        print(ask(line.strip()), flush=True)
