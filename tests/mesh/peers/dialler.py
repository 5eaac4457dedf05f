"""Calls, one after the other, with their times: `dialler.py`.

Each line of stdin is a batch, a list of `{"address", "port", "method", "path", "headers", "want"}`; no method: a TCP
connection that sends `want` and hears a line; else `want` goes as the header `X-Want`. Each is answered by a line, the
list of `[what came, when it began, when it ended]`: a status, the header `X-Served-By` and the body, joined by `|`, of
TCP the line, nothing if it was closed. Times are seconds of CLOCK_MONOTONIC. Connections of HTTP are kept.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from typing import Any

PATIENCE = 20.0
Json = dict[str, Any]


def request(connection: http.client.HTTPConnection, call: Json) -> str:
    """Send a request exactly as it is, and say what came."""
    connection.putrequest(call["method"], call["path"], skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": "server", "X-Want": call["want"], **call["headers"]}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace").strip()
    return f"{answer.status}|{answer.getheader('x-served-by') or ''}|{body}"


def connect(call: Json) -> str:
    """Open a TCP connection, say what is wanted, and hear the answer."""
    try:
        with socket.create_connection((call["address"], call["port"]), PATIENCE) as peer:
            peer.sendall(call["want"].encode() + b"\n")
            return peer.makefile().readline().strip()
    except ConnectionError:
        return ""


def main() -> None:
    """Answer batches until there are no more."""
    kept: dict[tuple[str, int], http.client.HTTPConnection] = {}
    for line in sys.stdin:
        answers = []
        for call in json.loads(line):
            where = (call["address"], call["port"])
            began = time.monotonic()
            try:
                if call["method"]:
                    if where not in kept:
                        kept[where] = http.client.HTTPConnection(*where, timeout=PATIENCE)
                    came = request(kept[where], call)
                else:
                    came = connect(call)
            except (OSError, http.client.HTTPException) as error:
                kept.pop(where, None)
                came = f"{type(error).__name__}: {error}"
            answers.append((came, began, time.monotonic()))
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
