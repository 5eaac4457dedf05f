"""Callers of one pod, each with an address and a proof of its own, that keep their connections: `callers.py HOST FILE`.

FILE is JSON: for each caller by name `{"address": …, "cert": path of chain and key, or null for plaintext}`. Then each
line of stdin is a batch, a list of `{"caller", "port", "method", "path", "headers"}`; no method: a TCP connection.
Each is answered by a line, the list of what came of them: a status and the beginning of the body (`"200 …"`), for gRPC
the code behind `grpc`, for TCP `open` or `closed`, or what failed.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

PATIENCE = 20.0
Json = dict[str, Any]


class Connection(http.client.HTTPConnection):
    """HTTP from an address, over TLS with a client's certificate when there is one. It verifies nobody."""

    def __init__(self, host: str, port: int, caller: Json) -> None:
        super().__init__(host, port, timeout=PATIENCE, source_address=(caller["address"], 0))
        self._cert = caller["cert"]

    def connect(self) -> None:
        super().connect()
        if self._cert:
            self.sock = secured(self.sock, self._cert)


def secured(raw: socket.socket, cert: str, alpn: str = "http/1.1") -> ssl.SSLSocket:
    """The client's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    context.load_cert_chain(cert)
    return context.wrap_socket(raw)


def request(connection: Connection, call: Json) -> str:
    """Send a request exactly as it is, and say what came."""
    connection.putrequest(call["method"], call["path"], skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": "server", **call["headers"]}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    code = answer.getheader("grpc-status")
    return f"grpc {code}" if code else f"{answer.status} {body[:60]}"


def connect(host: str, call: Json, caller: Json) -> str:
    """Open a TCP connection, and see whether the server says anything to it."""
    with socket.create_connection((host, call["port"]), PATIENCE, (caller["address"], 0)) as raw:
        stream = secured(raw, caller["cert"], "nginx-mesh-tcp") if caller["cert"] else raw
        try:
            stream.sendall(b"x\r\n\r\n")
            return "open" if stream.recv(2) else "closed"
        except (ConnectionError, ssl.SSLError):
            return "closed"
        finally:
            stream.close()


def main() -> None:
    """Answer batches until there are no more."""
    host, callers = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    kept: dict[tuple[str, int], Connection] = {}
    for line in sys.stdin:
        answers = []
        for call in json.loads(line):
            caller, where = callers[call["caller"]], (call["caller"], call["port"])
            try:
                if call["method"]:
                    if where not in kept:
                        kept[where] = Connection(host, call["port"], caller)
                    answers.append(request(kept[where], call))
                else:
                    answers.append(connect(host, call, caller))
            except (OSError, http.client.HTTPException) as error:
                kept.pop(where, None)
                answers.append(f"{type(error).__name__}: {error}")
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
