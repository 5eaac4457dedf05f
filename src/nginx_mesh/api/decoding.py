"""Plain values to typed ones, with errors that say which field is wrong in the words of whoever wrote it."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from .errors import FieldError, join, step

T = TypeVar("T")

_MESSAGE = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_PATH_PART = re.compile(r"\.([A-Za-z0-9_]+)|\[([0-9]+|\.\.\.)\]")
_EXPECTED = re.compile(r"Expected `(.*)`, got `(.*)`")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing",
}
_QUOTABLE = ("int", "float", "bool")


def decode_as(type_: type[T], value: Any) -> T:
    """The value as a `Model` or another msgspec struct. Raises FieldError."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise _explain(type_, value, str(error)) from None


def without_nulls(value: Any) -> Any:
    """A copy without mapping entries that are null: to Kubernetes those are the same as absent ones."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _explain(type_: type, value: Any, message: str) -> FieldError:
    found = _MESSAGE.fullmatch(message)
    problem, written = (found["problem"], found["path"]) if found else (message, None)
    parts = _located(value, written or "")
    path = ""
    for part in parts:
        path = join(path, step(part))
    about_field = _FIELD.fullmatch(problem)
    if about_field is not None:
        missing, name = about_field[1] == "missing required", about_field[2]
        if missing:
            return FieldError(join(path, step(name)), "is required")
        return FieldError(join(path, step(name)), f"unknown field; known are {', '.join(_fields(type_, parts))}")
    expected = _EXPECTED.fullmatch(problem)
    if expected is not None:
        return FieldError(path, _mismatch(expected[1], expected[2]))
    if problem.startswith("Invalid enum value"):
        given = problem.removeprefix("Invalid enum value ").strip("'")
        return FieldError(path, f'"{given}" is not one of {", ".join(_choices(type_, parts))}')
    return FieldError(path, problem)


def _mismatch(expected: str, got: str) -> str:
    wanted = [word for word in expected.split(" | ") if word != "null"]
    reason = f"must be {' or '.join(_WORDS.get(word, word) for word in wanted)}, not {_WORDS.get(got, got)}"
    if "str" in wanted and got in _QUOTABLE:
        reason += "; put the value in quotes"
    return reason


def _located(value: Any, written: str) -> list[str | int]:
    """The parts of msgspec's path. It leaves out keys of mappings, which hold strings: it is the one that does not."""
    parts: list[str | int] = []
    for name, index in _PATH_PART.findall(written):
        part: str | int = name
        if index == "..." and isinstance(value, dict):
            part = next((key for key, item in value.items() if not isinstance(item, str)), "...")
        elif index:
            part = int(index) if index != "..." else index
        parts.append(part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return parts


def _info(type_: type, parts: list[str | int]) -> msgspec.inspect.Type:
    """What is known of the type at a path."""
    info = _alone(msgspec.inspect.type_info(type_))
    for part in parts:
        if isinstance(info, msgspec.inspect.StructType):
            info = next((field.type for field in info.fields if field.encode_name == part), info)
        elif isinstance(info, msgspec.inspect.ListType):
            info = info.item_type
        elif isinstance(info, msgspec.inspect.DictType):
            info = info.value_type
        info = _alone(info)
    return info


def _alone(info: msgspec.inspect.Type) -> msgspec.inspect.Type:
    if isinstance(info, msgspec.inspect.UnionType):
        return next((one for one in info.types if not isinstance(one, msgspec.inspect.NoneType)), info)
    return info


def _fields(type_: type, parts: list[str | int]) -> list[str]:
    info = _info(type_, parts)
    return [field.encode_name for field in info.fields] if isinstance(info, msgspec.inspect.StructType) else []


def _choices(type_: type, parts: list[str | int]) -> list[str]:
    info = _info(type_, parts)
    return [str(value) for value in info.values] if isinstance(info, msgspec.inspect.LiteralType) else []
