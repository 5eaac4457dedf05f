"""TCP clients for the modes of tcp_server.py. Each prints one JSON document; on failure `{"error": …}`, exit code 1.

tcp_client.py greeting HOST PORT [--idle S]     wait for the greeting before saying anything, then talk, S seconds apart
tcp_client.py echo HOST PORT [--size N]         N bytes there and back at once
tcp_client.py count HOST PORT [--size N]        N bytes, shut down our side, then read the answer
tcp_client.py wait HOST PORT                    {"ready": …} at the greeting, the document when the server ends
tcp_client.py lines HOST PORT [--count N] [--idle S]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PIECE = 64 * 1024

Document = dict[str, Any]


class ProtocolError(Exception):
    """The server did not do what its mode says."""


def greeting(peer: socket.socket, options: argparse.Namespace) -> Document:
    """`waited` is the time until the greeting came."""
    began = time.monotonic()
    with peer.makefile("rwb", buffering=0) as stream:
        welcome = _line(stream.readline())
        waited = time.monotonic() - began
        time.sleep(options.idle)
        answers = []
        for command in ("ECHO hello mesh", "PEER", "NONSENSE", "QUIT"):
            stream.write(f"{command}\r\n".encode())
            answers.append(_line(stream.readline()))
        ended = stream.readline() == b""
    return {"greeting": welcome, "waited": waited, "answers": answers, "ended": ended}


def echo(peer: socket.socket, options: argparse.Namespace) -> Document:
    """Write and read at the same time, as the echo of much data needs."""
    sent, received = hashlib.sha256(), hashlib.sha256()

    def write() -> None:
        for start in range(0, options.size, PIECE):
            piece = (start // PIECE).to_bytes(8, "big") * (PIECE // 8)
            piece = piece[: options.size - start]
            sent.update(piece)
            peer.sendall(piece)
        peer.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    size = 0
    while piece := peer.recv(PIECE):
        size += len(piece)
        received.update(piece)
    writer.join(options.timeout)
    return {"size": size, "intact": size == options.size and sent.digest() == received.digest()}


def count(peer: socket.socket, options: argparse.Namespace) -> Document:
    """Half-close: the answer comes after our side has ended."""
    digest = hashlib.sha256()
    for start in range(0, options.size, PIECE):
        piece = b"x" * min(PIECE, options.size - start)
        digest.update(piece)
        peer.sendall(piece)
    time.sleep(options.idle)
    peer.shutdown(socket.SHUT_WR)
    with peer.makefile("rb") as stream:
        seen: Document = json.loads(stream.read())
    intact = (seen["bytes"], seen["sha256"]) == (options.size, digest.hexdigest())
    return {"name": seen["name"], "size": seen["bytes"], "intact": intact}


def lines(peer: socket.socket, options: argparse.Namespace) -> Document:
    """`count` lines, `idle` seconds apart, on one connection."""
    with peer.makefile("rwb", buffering=0) as stream:
        for index in range(options.count):
            if index:
                time.sleep(options.idle)
            text = f"line {index}\n"
            stream.write(text.encode())
            answer = stream.readline().decode()
            if answer != f"{index + 1} {text}":
                raise ProtocolError(f"line {index}: {answer!r}")
    return {"lines": options.count}


def wait(peer: socket.socket, options: argparse.Namespace) -> Document:
    """Say nothing until the server's side ends; `waited` is how long it lasted."""
    began = time.monotonic()
    with peer.makefile("rb", buffering=0) as stream:
        print(json.dumps({"ready": _line(stream.readline())}), flush=True)
        with suppress(ConnectionError):
            stream.readline()
    return {"waited": time.monotonic() - began}


def _line(line: bytes) -> str:
    if not line.endswith(b"\n"):
        raise ProtocolError("the server left within a line" if line else "the server left without a line")
    return line.decode().rstrip()


MODES: dict[str, Callable[[socket.socket, argparse.Namespace], Document]] = {
    "greeting": greeting,
    "echo": echo,
    "count": count,
    "lines": lines,
    "wait": wait,
}


def main() -> int:
    """Run one client; the exit code."""
    parser = argparse.ArgumentParser(description="TCP clients for tests")
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--idle", type=float, default=0)
    parser.add_argument("--timeout", type=float, default=30)
    options = parser.parse_args()
    try:
        with socket.create_connection((options.host, options.port), options.timeout) as peer:
            document = MODES[options.mode](peer, options)
    except (OSError, ValueError, ProtocolError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
