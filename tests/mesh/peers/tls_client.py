"""A TLS client that may present any certificate: `tls_client.py HOST PORT [--cert PEM] [--send TEXT] …`.

It does not verify the server: it plays somebody who wants in. `--cert` is a file with chain and key. It prints
`{"version", "answer", "server_spiffe_ids"}`, `answer` being the first bytes that came back; on failure `{"error": …}`,
exit code 1.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys

from cryptography import x509

HTTP_REQUEST = "GET /echo HTTP/1.1\r\nHost: intruder\r\nConnection: close\r\n\r\n"


def spiffe_ids(certificate: bytes) -> list[str]:
    """The URI SANs of a DER certificate."""
    extensions = x509.load_der_x509_certificate(certificate).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def call(options: argparse.Namespace) -> dict[str, object]:
    """One connection: handshake, send, read the first bytes."""
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
        context.wrap_socket(raw) as tls,
    ):
        if options.send:
            tls.sendall(options.send.encode())
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
    parser.add_argument("--max-version")
    parser.add_argument("--timeout", type=float, default=5)
    try:
        print(json.dumps(call(parser.parse_args())))
    except OSError as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
