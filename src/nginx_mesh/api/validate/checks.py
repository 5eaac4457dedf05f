"""Checks that several kinds share. They yield FieldErrors, whose fields are paths from the value they are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..errors import FieldError, join, step
from ..names import label_value, qualified_key

Errors = Iterator[FieldError]


def at(path: str, errors: Iterable[FieldError]) -> Errors:
    """The same errors, seen from where `path` begins."""
    return (error.within(path) for error in errors)


def must(field: str, reason: str | None) -> Errors:
    """One error, if there is a reason."""
    if reason is not None:
        yield FieldError(field, reason)


def at_least(field: str, value: int, least: int) -> Errors:
    """A number's lower bound."""
    if value < least:
        yield FieldError(field, f"{value} is less than {least}")


def at_most(field: str, value: int, most: int) -> Errors:
    """A number's upper bound."""
    if value > most:
        yield FieldError(field, f"{value} is more than {most}")


def one_of(field: str, value: str, choices: tuple[str, ...]) -> Errors:
    """One of a few words."""
    if value not in choices:
        yield FieldError(field, f'"{value}" is not one of {", ".join(choices)}')


def unique(field: str, values: Iterable[tuple[str, object]]) -> Errors:
    """No value twice. `values` are pairs of a path below `field` and the value found there."""
    seen: dict[object, str] = {}
    for path, value in values:
        first = seen.setdefault(value, path)
        if first != path:
            shown = "/".join(map(str, value)) if isinstance(value, tuple) else value
            yield FieldError(join(field, path), f'"{shown}" is already taken by {join(field, first)}')


def labels(field: str, values: Mapping[str, str]) -> Errors:
    """Labels, or a selector's matchLabels."""
    for key, value in values.items():
        path = join(field, step(key))
        yield from must(path, qualified_key(key))
        yield from must(path, label_value(value))
