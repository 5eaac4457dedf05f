"""Telling TLS from plaintext by the first bytes, which are whatever somebody on the network sends."""

from __future__ import annotations

import contextlib
import ssl

from hypothesis import given
from hypothesis import strategies as st

from .native import classify

MESH = "nginx-mesh-tcp"


def client_hello(*protocols: str) -> bytes:
    """What a real TLS client sends first."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="example.org")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_client_hello_is_tls() -> None:
    assert classify(client_hello()) == "tls"
    assert classify(client_hello("h2", "http/1.1")) == "tls"


def test_the_meshs_tcp_protocol_is_recognised_among_others() -> None:
    assert classify(client_hello(MESH)) == "mesh"
    assert classify(client_hello("h2", MESH)) == "mesh"
    assert classify(client_hello(MESH + "x")) == "tls"
    assert classify(client_hello(MESH[:-1])) == "tls"


@given(st.data())
def test_a_partial_client_hello_asks_for_more_and_never_guesses(data: st.DataObject) -> None:
    hello = client_hello(MESH)
    cut = data.draw(st.integers(0, len(hello) - 1))
    assert classify(hello[:cut]) == "more"
    assert classify(hello + data.draw(st.binary(max_size=50))) == "mesh"


@given(st.binary(min_size=1, max_size=400).filter(lambda data: data[0] != 22))
def test_what_does_not_begin_as_a_handshake_is_plaintext(data: bytes) -> None:
    assert classify(data) == "plain"


def test_ordinary_protocols_are_plaintext() -> None:
    for first in (b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"EHLO x\r\n", b"\x00\x00\x00\x08", b"SSH-2.0-x"):
        assert classify(first) == "plain"


@given(st.binary(max_size=600))
def test_garbage_behind_a_handshake_header_is_judged_without_reading_past_its_end(data: bytes) -> None:
    record = b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data
    assert classify(record) in ({"plain"} if not data else {"tls", "mesh"})


@given(st.data())
def test_a_damaged_client_hello_is_judged_and_nothing_worse(data: st.DataObject) -> None:
    hello = bytearray(client_hello("h2", MESH))
    for _ in range(data.draw(st.integers(1, 8))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    assert classify(bytes(hello)) in {"more", "plain", "tls", "mesh"}
