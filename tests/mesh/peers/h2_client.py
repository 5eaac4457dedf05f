"""An h2c client with prior knowledge: `h2_client.py URL [--streams N] [--size N] [--method M] [--header H]`.

It sends a body of `size` bytes on each of N concurrent streams of one connection and prints the answers as JSON:
`{"answers": [{"stream": 1, "status": 200, "headers": {…}, "trailers_only": false, "body": …}, …]}`, `trailers_only`
being whether the frame of headers ended the stream. Exit code 1 with `{"error": …}` when that failed.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

PIECE = 64 * 1024


@dataclass
class Stream:
    """One request on its way."""

    unsent: int
    headers: dict[str, str] = field(default_factory=dict)
    trailers_only: bool = False
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False


class Client:
    """A connection and its streams."""

    def __init__(self, url: str, timeout: float, method: str, headers: list[str]) -> None:
        self._url = urlsplit(url)
        self._headers = [(name, value) for name, _, value in (header.partition(": ") for header in headers)]
        self._method = method
        self._socket = socket.create_connection((self._url.hostname, self._url.port or 80), timeout)
        self._state = h2.connection.H2Connection(h2.config.H2Configuration())
        self._streams: dict[int, Stream] = {}

    def run(self, streams: int, size: int) -> list[dict[str, Any]]:
        """Send on `streams` streams at once, and wait for all answers."""
        self._state.initiate_connection()
        for _ in range(streams):
            self._open(size)
        with self._socket:
            while not all(stream.ended for stream in self._streams.values()):
                self._send_bodies()
                self._socket.sendall(self._state.data_to_send())
                received = self._socket.recv(PIECE)
                if not received:
                    raise ConnectionError("the server left before the last answer")
                for event in self._state.receive_data(received):
                    self._react(event)
            self._state.close_connection()
            self._socket.sendall(self._state.data_to_send())
        return [
            {
                "stream": number,
                "status": int(stream.headers[":status"]),
                "headers": stream.headers,
                "trailers_only": stream.trailers_only,
                "body": json.loads(stream.body) if stream.body else None,
            }
            for number, stream in self._streams.items()
        ]

    def _open(self, size: int) -> None:
        number = self._state.get_next_available_stream_id()
        path = self._url.path + (f"?{self._url.query}" if self._url.query else "")
        fields = [(":method", self._method), (":scheme", "http"), (":authority", self._url.netloc), (":path", path)]
        self._state.send_headers(number, fields + self._headers, end_stream=not size)
        self._streams[number] = Stream(unsent=size)

    def _send_bodies(self) -> None:
        for number, stream in self._streams.items():
            while stream.unsent and not stream.ended:
                room = min(self._state.local_flow_control_window(number), self._state.max_outbound_frame_size)
                if not room:
                    break
                size = min(room, stream.unsent)
                stream.unsent -= size
                self._state.send_data(number, b"x" * size, end_stream=not stream.unsent)

    def _react(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            stream = self._streams[event.stream_id]
            stream.headers = {name.decode(): value.decode() for name, value in event.headers}
            stream.trailers_only = event.stream_ended is not None
        elif isinstance(event, h2.events.DataReceived):
            self._streams[event.stream_id].body += event.data
            self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self._streams[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            raise ConnectionError(f"stream {event.stream_id} was reset: {event.error_code}")
        elif isinstance(event, h2.events.ConnectionTerminated) and event.error_code != h2.errors.ErrorCodes.NO_ERROR:
            raise ConnectionError(f"GOAWAY: {event.error_code}")


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description="h2c client for tests")
    parser.add_argument("url")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--method", default="POST")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--timeout", type=float, default=30)
    options = parser.parse_args()
    try:
        answers = Client(options.url, options.timeout, options.method, options.header).run(
            options.streams, options.size
        )
    except (OSError, ValueError, h2.exceptions.H2Error) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps({"answers": answers}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
