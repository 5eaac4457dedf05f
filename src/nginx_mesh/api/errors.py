"""What is wrong with a value that somebody wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


class FieldError(ValueError):
    """A field and why its value is refused. `field` is a path such as `spec.ports[0].port`, or an annotation's key."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason

    def within(self, path: str) -> FieldError:
        """The same error, its field seen from further outside."""
        return FieldError(join(path, self.field), self.reason)


@contextmanager
def located(path: str) -> Iterator[None]:
    """What goes wrong in the block went wrong inside `path`."""
    try:
        yield
    except FieldError as error:
        raise error.within(path) from None


def join(path: str, field: str) -> str:
    """The path of a field inside `path`."""
    if not path or not field or field.startswith("["):
        return path + field
    return f"{path}.{field}"


def step(part: str | int) -> str:
    """One key or index as a part of a path; what would be ambiguous stands in brackets."""
    if isinstance(part, int) or not _PLAIN_KEY.fullmatch(part):
        return f"[{part}]"
    return part


def one_line(text: str, limit: int = 300) -> str:
    """Text that came from outside, fit for one line of a terminal or a log."""
    if len(text) > limit:
        text = text[:limit] + "…"
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)
