"""Bytes of strangers become text in UTF-8, as Python's decoder understands that."""

from __future__ import annotations

import codecs
import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .native import library

codecs.register_error("each", lambda error: ("\ufffd" * (error.end - error.start), error.end))  # type: ignore[attr-defined]


def repaired(data: bytes) -> bytes:
    room = len(data) + 2 * library().text_invalid(data, len(data))
    to = ctypes.create_string_buffer(room + 1)
    to[room] = b"\x7f"
    length = library().text_repair(to, data, len(data))
    assert length == room
    assert to[room] == b"\x7f", "written past the end"
    return to.raw[:length]


@given(st.binary() | st.text().map(str.encode))
def test_text_stays_as_it_is_and_each_byte_that_is_none_is_replaced(data: bytes) -> None:
    assert repaired(data) == data.decode(errors="each").encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf0\x80\x80\xaf",
        b"\xf8",
        b"\xe2\x82",
        b"\x80",
    ],
)
def test_overlong_forms_surrogates_and_torn_characters_are_no_text(data: bytes) -> None:
    assert repaired(data).decode() == "\ufffd" * len(data)


def printable(data: bytes, size: int) -> bytes:
    to = ctypes.create_string_buffer(size + 1)
    to[size] = b"\x7f"
    length = library().text_printable(to, size, data, len(data))
    assert length <= size
    assert to[size] == b"\x7f", "written past the end"
    return to.raw[:length]


@given(st.binary(max_size=80), st.integers(16, 80))
def test_a_text_for_the_log_is_one_printable_line_of_bounded_length(data: bytes, size: int) -> None:
    whole = "".join(chr(byte) if 0x20 <= byte <= 0x7E and chr(byte) not in '"\\' else f"\\x{byte:02x}" for byte in data)
    line = printable(data, size).decode("ascii")
    assert line.isprintable()
    if len(whole) <= size:
        assert line == whole
    else:
        assert line.endswith("...")
        assert whole.startswith(line[:-3])
        assert size - len(line) < 4, "cut before it had to be"
