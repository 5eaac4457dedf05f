"""Requests as no client library would send them, each on its own connection: `intruder.py HOST PORT CERT REQUESTS`.

CERT is a file with chain and key, REQUESTS a file with a JSON list: a string is sent as it is, a list of names and
values are the fields of an HTTP/2 request, checked by nobody. Prints `{"answers": [[STATUS, …], …]}`: the statuses that
came back until the server closed the connection, reset the stream or was done; HTTP/2 also a 0 for a reset.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events

STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3})", re.MULTILINE)


def connect(options: argparse.Namespace, protocol: str) -> ssl.SSLSocket:
    """A connection that trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(options.cert)
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(socket.create_connection((options.host, options.port), options.timeout))


def say(options: argparse.Namespace, text: str) -> list[int]:
    """Send text, and read to the end."""
    answer = b""
    with connect(options, "http/1.1") as tls, suppress(TimeoutError, ConnectionError, ssl.SSLError):
        tls.sendall(text.encode("latin-1"))
        while received := tls.recv(65536):
            answer += received
    if answer and not answer.startswith(b"HTTP/"):
        return [9]  # HTTP/0.9
    return [int(status) for status in STATUS.findall(answer)]


def ask(options: argparse.Namespace, fields: list[tuple[str, str]]) -> list[int]:
    """One HTTP/2 request."""
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=False
    )
    state = h2.connection.H2Connection(config)
    state.initiate_connection()
    state.send_headers(1, fields, end_stream=True)
    with connect(options, "h2") as tls, suppress(TimeoutError, ConnectionError, ssl.SSLError):
        tls.sendall(state.data_to_send())
        while received := tls.recv(65536):
            for event in state.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    return [int(value) for name, value in event.headers if name == b":status"]
                if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return [0]
            tls.sendall(state.data_to_send())
    return []


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description="hostile HTTP client for tests")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("cert")
    parser.add_argument("requests", type=Path)
    parser.add_argument("--timeout", type=float, default=5)
    options = parser.parse_args()
    answers = [
        say(options, request) if isinstance(request, str) else ask(options, [(name, value) for name, value in request])
        for request in json.loads(options.requests.read_text())
    ]
    print(json.dumps({"answers": answers}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
