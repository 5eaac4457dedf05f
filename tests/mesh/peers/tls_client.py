"""A TLS client that may present any certificate: `tls_client.py HOST PORT [--cert PEM] [--send TEXT] …`.

It does not verify the server: it plays somebody who wants in. `--cert` is a file with chain and key. It prints
`{"version", "answer", "server_spiffe_ids"}`, `answer` being the first bytes that came back; on failure `{"error": …}`,
exit code 1.

What is sent: `--send TEXT` or `--send-file PATH`. How: `--slowly`, each byte in a segment of its own, those of the
handshake too; `--freeze PID`, all at once to a process that is stopped meanwhile; `--record BYTES`, as records of that
size; `--second`, after another request on the connection was answered. `--half-close` ends the client's side then,
`--half-close=rudely` without saying so in TLS.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509

HTTP_REQUEST = "GET /echo HTTP/1.1\r\nHost: intruder\r\nConnection: close\r\n\r\n"


def spiffe_ids(certificate: bytes) -> list[str]:
    """The URI SANs of a DER certificate."""
    extensions = x509.load_der_x509_certificate(certificate).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def slowly(raw: socket.socket) -> socket.socket:
    """A socket whose bytes go over `raw` one by one."""
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours, theirs = socket.socketpair()

    def forward(source: socket.socket, target: socket.socket, piece: int) -> None:
        with suppress(OSError):
            while data := source.recv(piece):
                target.sendall(data)
                time.sleep(0.0001)
            target.shutdown(socket.SHUT_WR)

    for source, target, piece in ((theirs, raw, 1), (raw, theirs, 65536)):
        threading.Thread(target=forward, args=(source, target, piece), daemon=True).start()
    return ours


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process (0: none) until what was sent has arrived."""
    if pid:
        time.sleep(0.03)  # it has read what came before
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
        time.sleep(0.03 if pid else 0)
    finally:
        if pid:
            os.kill(pid, signal.SIGCONT)


def half_close(tls: ssl.SSLSocket, how: str) -> None:
    """End our side, and go on reading."""
    if how == "politely":
        tls.setblocking(False)
        with suppress(ssl.SSLWantReadError):
            tls.unwrap()
        tls.setblocking(True)
    socket.socket.shutdown(tls, socket.SHUT_WR)  # its own method would end TLS for reading too


def call(options: argparse.Namespace) -> dict[str, object]:
    """One connection: handshake, send, read the first bytes."""
    sent = options.send_file.read_bytes() if options.send_file else options.send.encode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    if options.max_version:
        context.maximum_version = ssl.TLSVersion[options.max_version]
    if options.alpn:
        context.set_alpn_protocols([options.alpn])
    if options.cert:
        context.load_cert_chain(options.cert)
    with (
        socket.create_connection((options.host, options.port), options.timeout) as raw,
        context.wrap_socket(slowly(raw) if options.slowly else raw) as tls,
    ):
        tls.settimeout(options.timeout)
        if options.second:
            tls.sendall(HTTP_REQUEST.replace("close", "keep-alive").encode())
            first = http.client.HTTPResponse(tls)
            first.begin()
            first.read()
        with frozen(options.freeze):
            for at in range(0, len(sent), options.record):
                tls.sendall(sent[at : at + options.record])
            if options.half_close:
                half_close(tls, options.half_close)
                tls.settimeout(options.timeout)
        answer = tls.recv(65536)
        served = tls.getpeercert(binary_form=True) or b""
        return {
            "version": tls.version(),
            "answer": answer.decode(errors="replace"),
            "server_spiffe_ids": spiffe_ids(served),
        }


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description="TLS client for tests")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--cert")
    parser.add_argument("--alpn")
    parser.add_argument("--send", default=HTTP_REQUEST)
    parser.add_argument("--send-file", type=Path)
    parser.add_argument("--max-version")
    parser.add_argument("--slowly", action="store_true")
    parser.add_argument("--freeze", type=int, default=0)
    parser.add_argument("--record", type=int, default=16384)
    parser.add_argument("--second", action="store_true")
    parser.add_argument("--half-close", nargs="?", const="politely", choices=("politely", "rudely"))
    parser.add_argument("--timeout", type=float, default=5)
    try:
        print(json.dumps(call(parser.parse_args())))
    except OSError as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
