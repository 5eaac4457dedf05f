"""Strict JSON, for untrusted documents: nothing is accepted that another parser could read differently."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


class JsonError(ValueError):
    """A text that is not strict JSON. The message says why, and quotes nothing of the text but names of members."""


def parse_object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text` (UTF-8), which has no member twice and no number beyond 64 bits. Raises JsonError.

    The caller limits the length of the text.
    """
    try:
        value = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=_refuse
        )
    except JsonError:
        raise
    except UnicodeDecodeError:
        raise JsonError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise JsonError("nested too deeply") from None
    if not isinstance(value, dict):
        raise JsonError("not a JSON object")
    if b"\\ud" in text.lower():
        _check_surrogates(value)
    return value


def _check_surrogates(value: object) -> None:
    """Refuse strings with half a surrogate pair, which cannot be encoded again."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise JsonError("a string is not Unicode") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonError(f"member {twice[:64]!r} occurs twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (value := int(digits)) < 2**64:
        raise JsonError("a number is too large")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError("a number is too large")
    return value


def _refuse(constant: str) -> NoReturn:
    raise JsonError(f"{constant} is not JSON")
