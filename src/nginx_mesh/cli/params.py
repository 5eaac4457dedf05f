"""Types of parameters that commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from nginx_mesh.api.errors import FieldError

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|)")
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Parsed(click.ParamType[Any]):
    """A value that `parse` reads from text; what it raises as FieldError is wrong usage."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text. A value that is parsed already stays as it is."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except FieldError as error:
            self.fail(str(error), param, ctx)


def parse_duration(text: str) -> int:
    """Return the seconds in a text such as 90, 90s, 5m or 1h. Raises click.BadParameter."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter(f'"{text}" is not a duration such as 90s, 5m or 1h')
    return int(found[1]) * _DURATION_UNITS[found[2]]
