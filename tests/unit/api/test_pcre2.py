"""Patterns are judged by the library that matches them in sidecars."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api import pcre2


@pytest.mark.parametrize(
    "pattern",
    ["", "/api/.*", r"(?<name>\d+)\k<name>", r"\R\h\K(?|a|(b))", "(?i)a++b*+", "(?(DEFINE)(?<x>a))(?&x)", "naïve"],
)
def test_what_sidecars_can_match_is_let_in(pattern: str) -> None:
    assert pcre2.pattern_fault(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "missing closing parenthesis at position 2"),
        ("*", "quantifier does not follow"),
        ("[z-a]", "range out of order"),
        (r"(?<=a*)b", "lookbehind assertion"),
        (r"\k<none>", "non-existent"),
        ("(?P<1a>b)", "start with a non-digit"),
        ("(" * 300 + ")" * 300, "nested"),
        ("a" * 5000, "longer than 4096"),
    ],
)
def test_what_sidecars_cannot_match_is_refused_in_words(pattern: str, reason: str) -> None:
    assert reason in (pcre2.pattern_fault(pattern) or "")


def test_python_finds_what_is_plainly_wrong_where_pcre2_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcre2, "_library", lambda: None)
    assert "unterminated" in (pcre2.pattern_fault("[a") or "")
    assert pcre2.pattern_fault(r"\h\K") is None


@given(st.text(max_size=60))
def test_any_text_gets_an_answer(pattern: str) -> None:
    fault = pcre2.pattern_fault(pattern)
    assert fault is None or fault.startswith(f'"{pattern}" is not a regular expression: ')
