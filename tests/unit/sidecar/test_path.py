"""What a path may mean: the readings by which it is matched, and paths that are matched by none."""

from __future__ import annotations

import ctypes
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .native import library

# Said once more, as a pattern: segments that are dots, encoded or not; what is no path; what nobody has to encode.
AMBIGUOUS = re.compile(
    rb"/(?:\.|%2e){1,2}(?:[/;]|$)|[\\#\x00-\x1f\x7f\xc0\xc1]|%(?![0-9a-f]{2})|%25[0-9a-f]{2}"
    rb"|%(?:2f|5c|3b|[01].|7f|c[01])",
    re.IGNORECASE | re.DOTALL,
)
PIECES = [*(b"/.%;?#\\a2eEfF5cC3b01"[i : i + 1] for i in range(19)), b"%2e", b"%2F", b"..", b"%25", b"%7f", b"\xc0\xae"]
paths = st.lists(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=1), max_size=12).map(b"".join)


def ambiguous(target: bytes) -> bool:
    return bool(library().path_is_ambiguous(target, len(target)))


def reading(name: str, path: bytes) -> bytes:
    room = ctypes.create_string_buffer(len(path) + 1)
    size = getattr(library(), name)(room, path, len(path))
    return room.raw[:size]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a/b",
        "//a//b/",
        "/a;x=1/b",
        "/.hidden",
        "/...",
        "/a../..b",
        "/a.b/c.",
        "/%20/%c3%a9/é",
        "/100%25",
        "/100%25x",
        "/a?b=../%2f\\#;",
        "*",
        "",
    ],
)
def test_an_ordinary_path_is_not_ambiguous(target: str) -> None:
    assert not ambiguous(target.encode())


@pytest.mark.parametrize(
    "target",
    [
        "/.",
        "/..",
        "/../a",
        "/a/./b",
        "/a/..?b",
        "/a/..;/b",
        "/a/.;x=1/b",
        "/%2e%2E/a",
        "/.%2e",
        "/%2e",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a%3bb",
        "/a%00",
        "/a%0a",
        "/a%7f",
        "/%252e%252e/a",
        "/%25252e/a",
        "/%2561",
        "/%c0%ae/",
        "/a#b",
        "/a%",
        "/a%2",
        "/a%zz",
    ],
)
def test_a_path_that_somebody_may_take_for_another_is_ambiguous(target: str) -> None:
    assert ambiguous(target.encode())


@given(paths)
def test_which_paths_are_ambiguous_can_be_said_as_a_pattern(target: bytes) -> None:
    assert ambiguous(target) == bool(AMBIGUOUS.search(target.partition(b"?")[0]))


@given(paths.map(lambda path: b"/" + path))
def test_no_reading_of_an_unambiguous_path_has_segments_that_are_dots(path: bytes) -> None:
    """However an application decodes, merges and cuts, and in whatever order: it stays where the path says."""
    path = path.partition(b"?")[0]
    if ambiguous(path):
        return
    decoded = unquote_to_bytes(path)
    for first in (decoded, unquote_to_bytes(decoded), path):
        for second in (first, reading("path_cut_parameters", first)):
            assert not {b".", b".."} & set(second.split(b"/"))


@given(paths)
def test_merging_and_cutting_are_what_they_say(path: bytes) -> None:
    assert reading("path_merge_slashes", path) == re.sub(rb"/+", b"/", path)
    assert reading("path_cut_parameters", path) == re.sub(rb";[^/]*", b"", path)
