"""A question reaches the sidecar just as it is meant, and nothing in a request can change who is said to send it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.errors import FieldError
from nginx_mesh.protocol.explain import Question, Request, encode

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-_.!0123456789", min_size=1, max_size=20)
VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF).filter(lambda c: c != "\x7f" and not "\x80" <= c < "\xa0")
)


@given(
    method=TOKENS,
    headers=st.lists(st.tuples(TOKENS, VALUES), max_size=5),
    peer=st.none() | st.just("") | st.just("spiffe://example.org/ns/a/sa/b"),
    ipv6=st.booleans(),
)
def test_the_preamble_ends_where_the_request_begins(
    method: str, headers: list[tuple[str, str]], peer: str | None, ipv6: bool
) -> None:
    request = Request(method, "/a?b", tuple(headers))
    request.check()
    question = Question(
        direction="inbound",
        ip="fd00::1" if ipv6 else "10.0.0.1",
        port=8080,
        source="10.0.0.2",
        peer=peer,
        request=request,
    )
    sent = encode(question)
    assert sent.startswith(SIGNATURE)
    command, family, length = struct.unpack_from("!BBH", sent, len(SIGNATURE))
    assert (command, family) == (0x21, 0x21 if ipv6 else 0x11)
    head = sent[len(SIGNATURE) + 4 + length :].decode("latin-1")
    lines = head.split("\r\n")
    assert lines[0] == f"{method} /a?b HTTP/1.1"
    assert lines[1:] == [*(f"{name}: {value}" for name, value in headers), "", ""]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request("GET /x HTTP/1.1\r\nA: b\r\n\r\nGET"), "method"),
        (Request(""), "method"),
        (Request("G" * 101), "method"),
        (Request(path="items"), "path"),
        (Request(path="/a b"), "path"),
        (Request(path="/a\r\nX: y"), "path"),
        (Request(path="/\u00e4"), "path"),
        (Request(headers=(("a b", ""),)), "headers"),
        (Request(headers=(("", ""),)), "headers"),
        (Request(headers=(("a:", ""),)), "headers"),
        (Request(headers=(("a", "b\r\nc: d"),)), "headers"),
        (Request(headers=(("a", "\0"),)), "headers"),
        (Request(headers=(("a", "\u20ac"),)), "headers"),
    ],
)
def test_what_cannot_be_sent_as_it_is_is_refused(request_: Request, field: str) -> None:
    with pytest.raises(FieldError) as error:
        request_.check()
    assert error.value.field == field


def test_what_a_sidecar_does_not_send_on_is_not_in_the_second_question() -> None:
    request = Request(
        headers=(
            ("Host", "x"),
            ("Connection", "keep-alive, X-Hop"),
            ("Keep-Alive", "5"),
            ("TE", "gzip"),
            ("X-Kept", "1"),
        )
    )
    assert request.forwarded().headers == (("Host", "x"), ("X-Kept", "1"))
    websocket = Request(headers=(("Connection", "Upgrade"), ("Upgrade", "websocket")))
    assert websocket.forwarded().headers == (("Upgrade", "websocket"), ("Connection", "upgrade"))
    assert Request(headers=(("Connection", "Upgrade"), ("Upgrade", "h2c"))).forwarded().headers == ()
    grpc = Request(headers=(("Content-Type", "application/grpc+proto"), ("TE", "trailers")))
    assert grpc.forwarded() == grpc
