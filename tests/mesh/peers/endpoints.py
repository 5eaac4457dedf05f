"""Every endpoint of a mesh in one process: `endpoints.py BUNDLE CERTS PORT…`.

It listens on the ports at all addresses that the machine has, and takes HTTP/1.1 and lines of TCP, in plaintext or by
mTLS, as they come. CERTS is JSON: for each address the path of its chain and key. BUNDLE is the CA of all callers.
Of HTTP the header `X-Want`, of TCP the line says what to do: `close` ends the connection; of HTTP anything else is the
status to answer with. The body, or the line that answers, is `ADDRESS:PORT mtls` or `ADDRESS:PORT plain`.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

CERTS: dict[str, str] = json.loads(Path(sys.argv[2]).read_text())


@cache
def context(address: str) -> ssl.SSLContext:
    """Of the endpoint at an address. It takes callers of the mesh only."""
    result = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    result.load_cert_chain(CERTS[address])
    result.load_verify_locations(sys.argv[1])
    result.verify_mode = ssl.CERT_REQUIRED
    return result


def serve(raw: socket.socket) -> None:
    """One connection, to its end."""
    with raw:
        address, port = raw.getsockname()[:2]
        try:
            secure = raw.recv(1, socket.MSG_PEEK) == b"\x16"
            peer = context(address).wrap_socket(raw, server_side=True) if secure else raw
            with peer, peer.makefile("rwb") as stream:
                while answer(cast(BinaryIO, stream), f"{address}:{port} {'mtls' if secure else 'plain'}"):
                    stream.flush()
        except OSError:
            pass  # the caller's side of a test sees that nothing came


def answer(stream: BinaryIO, who: str) -> bool:
    """One request, or one line. Whether the connection goes on."""
    line = stream.readline().decode()
    http = "HTTP/1" in line
    want = line.strip()
    if http:
        while header := stream.readline().decode().strip():
            name, _, value = header.partition(": ")
            want = value if name.lower() == "x-want" else want
    if not line or want == "close":
        return False
    head = f"HTTP/1.1 {want} OK\r\nX-Served-By: {who}\r\nContent-Length: {len(who) + 1}\r\n\r\n" if http else ""
    stream.write(f"{head}{who}\n".encode())
    return True


def accept(listener: socket.socket) -> None:
    """Serve whoever comes."""
    while True:
        connection = listener.accept()[0]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def main() -> None:
    """Listen, say so, and serve."""
    listeners = [socket.create_server(("", int(port)), backlog=1024) for port in sys.argv[3:]]
    print(json.dumps({"port": listeners[0].getsockname()[1]}), flush=True)
    for listener in listeners[1:]:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    accept(listeners[0])


if __name__ == "__main__":
    main()
