"""Reports about requests are JSON of bounded size whatever was in the request."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from .native import ReportStruct, library

SIZE = 512
MEMBERS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.binary(max_size=200) | st.integers(-(2**63), 2**63 - 1)),
    max_size=8,
    unique_by=lambda member: member[0],
)


def written(members: list[tuple[str, bytes | int]], *, size: int = SIZE, most: int = 100) -> bytes:
    """The document; fails when a byte beyond the buffer was touched."""
    buffer = ctypes.create_string_buffer(b"\xaa" * (size + 64), size + 64)
    report = ReportStruct()
    library().report_begin(report, buffer, size)
    for name, value in members:
        if isinstance(value, int):
            library().report_number(report, name.encode(), value)
        else:
            library().report_text(report, name.encode(), value, len(value), most)
    length = library().report_end(report)
    assert length <= size
    assert buffer.raw[size:] == b"\xaa" * 64
    return buffer.raw[:length]


def read(members: list[tuple[str, bytes | int]], **options: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(written(members, **options).decode())
    return document


@given(MEMBERS)
def test_any_request_gives_a_document_that_says_what_was_in_it(members: list[tuple[str, bytes | int]]) -> None:
    document = read(members, size=2048)
    for name, value in members:
        if isinstance(value, int):
            assert document[name] == value
        elif not value:
            assert name not in document
        else:
            assert value.decode(errors="replace").replace("\ufffd", "").startswith(document[name].replace("\ufffd", ""))


@given(st.text(min_size=1, max_size=16))
def test_text_that_fits_is_told_as_it_is(text: str) -> None:
    assert read([("a", text.encode())]) == {"a": text}


@given(st.text(min_size=1, max_size=300), st.integers(1, 80))
def test_what_is_too_long_is_cut_between_characters(text: str, most: int) -> None:
    told = read([("a", text.encode())], most=most)["a"]
    assert text.startswith(told)
    assert len(json.dumps(told, ensure_ascii=False).encode()) <= most + 2 or "\x7f" in told
    assert told == text or len(told.encode()) > most - 6 or any(c < " " or c in '"\\\x7f' for c in told)


@given(MEMBERS, st.integers(64, 300))
def test_what_has_no_room_is_left_out_whole(members: list[tuple[str, bytes | int]], size: int) -> None:
    whole, document = read(members, size=4096), read(members, size=size)
    assert document.items() <= whole.items()


def test_bytes_that_are_no_text_are_replaced() -> None:
    for wrong in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"):
        told = read([("a", b"x" + wrong + b"y")])["a"]
        assert told == "x" + "\ufffd" * len(wrong) + "y"
