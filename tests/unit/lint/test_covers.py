"""A match is called superfluous only if an earlier one matches everything that it matches."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nginx_mesh.api.smi import HTTPMatch
from nginx_mesh.lint.routes import covers

_PATTERNS = st.lists(
    st.sampled_from(["^", "/", "a", "b", r"\.", "*", "?", "|", "(", ")", "(?i)", ".", "$", "{2}", "+", "[ab]"]),
    max_size=6,
).map("".join)
_PATHS = st.text(alphabet="/ab.A", max_size=8).map(lambda rest: f"/{rest}")


def match(path: str = "", methods: list[str] | None = None, headers: dict[str, str] | None = None) -> HTTPMatch:
    return HTTPMatch(name="m", path_regex=path, methods=methods or [], headers=headers or {})


def compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:
        return None


@given(_PATTERNS, _PATTERNS, st.lists(_PATHS, min_size=5, max_size=30))
def test_what_covers_a_pattern_matches_every_path_that_it_matches(earlier: str, later: str, paths: list[str]) -> None:
    wide, narrow = compiled(earlier), compiled(later)
    assume(wide is not None and narrow is not None)
    assert wide is not None and narrow is not None
    if covers(match(earlier), match(later)):
        assert not [path for path in paths if narrow.search(path) and not wide.search(path)]


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        ("", "^/a", True),
        ("*", "^/a", True),
        ("^/a", "^/a", True),
        ("^/a", "^/a/b$", True),
        ("^/a.*", "^/ab", True),
        (r"^/a\.b", r"^/a\.b/c", True),
        ("^/ab", "^/a", False),
        ("^/a$", "^/a/b", False),
        ("/a", "^/b", False),
        ("^/ab", "^/ab?", False),
        ("^/ab", "^/ab*c", False),
        (r"^/a\.", r"^/a\.?", False),
        ("^/a", "^/a|^/b", False),
        ("^/a", "(?i)^/a", False),
        ("^/a", "^/a(?i)b", False),
        ("^/a", "", False),
    ],
)
def test_which_path_patterns_cover_others(earlier: str, later: str, expected: bool) -> None:
    assert covers(match(earlier), match(later)) is expected


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        ([], ["GET"], True),
        (["*"], ["GET"], True),
        (["GET", "PUT"], ["GET"], True),
        (["GET"], ["GET", "PUT"], False),
        (["GET"], [], False),
        (["GET"], ["*"], False),
    ],
)
def test_which_methods_cover_others(earlier: list[str], later: list[str], expected: bool) -> None:
    assert covers(match(methods=earlier), match(methods=later)) is expected


def test_headers_narrow_a_match() -> None:
    assert covers(match(headers={"A": "1"}), match(headers={"a": "1", "b": "2"}))
    assert not covers(match(headers={"a": "1", "b": "2"}), match(headers={"a": "1"}))
    assert not covers(match(headers={"a": "1"}), match(headers={"a": "2"}))
