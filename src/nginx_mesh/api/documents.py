"""YAML and JSON text as plain values: the part of reading a manifest that knows nothing of Kubernetes.

A value is a tree of dict, list, str, int, float, bool and None that any JSON encoder can write: keys are strings,
integers fit 64 bits, floats are finite, strings are valid Unicode without NUL. Two documents never share a part.

YAML is read the way `kubectl` does, which is nearly YAML 1.1: `on` and `yes` are booleans, but dates are strings
and there are no base-60 numbers. Mapping keys are always taken as strings.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .errors import FieldError, one_line, step

MAX_BYTES = 16 << 20
MAX_DOCUMENTS = 5000
MAX_DEPTH = 100
MAX_VALUES = 2_000_000
# How many values the aliases of one document may stand for, all taken together.
MAX_ALIASED = 100_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o?[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BOOLEANS = {
    form: value
    for words, value in ((("true", "yes", "on"), True), (("false", "no", "off"), False))
    for word in words
    for form in (word, word.capitalize(), word.upper())
}
# Booleans to readers of all of YAML 1.1.
_AMBIGUOUS = ("y", "Y", "n", "N")
_NULLS = ("", "~", "null", "Null", "NULL")
_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"
_LONGEST_NUMBER = 100
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


class Document(NamedTuple):
    """One document, counted from 1. `value` is meaningless when there is an `error`."""

    number: int
    value: Any
    error: FieldError | None = None


def read(data: bytes) -> Iterator[Document]:
    """The documents of a manifest, empty ones left out. Never raises: what cannot be read is a document's error.

    Nothing is told of what follows a syntax error or goes beyond the limits.
    """
    if len(data) > MAX_BYTES:
        yield Document(1, None, FieldError("", f"is larger than {MAX_BYTES >> 20} MiB"))
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Document(1, None, FieldError("", f"is not UTF-8: {error.reason} at byte {error.start}"))
        return
    documents = _json(text) or _yaml(text)
    for document in documents:
        if document.number > MAX_DOCUMENTS:
            yield Document(document.number, None, FieldError("", f"there are more than {MAX_DOCUMENTS} documents"))
            return
        if document.error is None and document.value is not None:
            document = document._replace(error=_unfit(document.value))
        if document.error is not None or document.value is not None:
            yield document


def read_one(data: bytes, source: str) -> Any:
    """The only document of a file. Raises FieldError."""
    documents = list(read(data))
    if len(documents) != 1:
        raise FieldError("", f"{source} has {len(documents)} documents instead of one")
    if documents[0].error is not None:
        raise FieldError("", f"{source}: {documents[0].error}")
    return documents[0].value


def read_file(path: Path) -> Any:
    """The only document of the file at a path. Raises FieldError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FieldError("", f"cannot read {path}: {error.strerror}") from None
    return read_one(data, str(path))


def _json(text: str) -> list[Document]:
    """The documents of text that is one JSON object or several in a row; empty when it is not that."""
    if not text.lstrip().startswith("{"):
        return []
    decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    documents: list[Document] = []
    position = 0
    try:
        while len(documents) <= MAX_DOCUMENTS:
            position = len(text) - len(text[position:].lstrip())
            if position == len(text):
                break
            value, position = decoder.raw_decode(text, position)
            documents.append(Document(len(documents) + 1, value))
    except (ValueError, RecursionError):
        # It may still be YAML, whose reader also has the better words for what is wrong.
        return []
    return documents


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _yaml(text: str) -> Iterator[Document]:
    index = 0
    builder = _Builder()
    values = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.DocumentStartEvent):
                index += 1
                builder = _Builder()
            elif isinstance(event, yaml.DocumentEndEvent):
                yield Document(index, builder.value, builder.error)
            elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                values += 1
                builder.feed(event)
                # Past these limits the parser itself takes too long: nothing more is read.
                if values > MAX_VALUES:
                    yield Document(index, None, FieldError("", f"has more than {MAX_VALUES} values"))
                    return
                if builder.too_deep:
                    yield Document(index, None, builder.error)
                    return
    except yaml.YAMLError as error:
        yield Document(max(index, 1), None, FieldError("", _syntax_error(error)))


def _syntax_error(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        return f"is not YAML: {where}" + " ".join(part for part in (error.context, error.problem) if part)
    return "is not YAML: " + " ".join(str(error).split())


class _Open:
    """A mapping or sequence that has begun. `key` is the mapping's key whose value comes next."""

    __slots__ = ("anchor", "key", "merged", "value")

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: str | None = None
        self.merged: list[Any] = []


class _Builder:
    """Makes the value of one document out of parser events, without recursion. After an error it ignores the rest."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: FieldError | None = None
        self.too_deep = False
        self._open: list[_Open] = []
        self._anchors: dict[str, Any] = {}
        self._aliased = 0

    def feed(self, event: yaml.Event) -> None:
        """Take the next node event."""
        if self.error is not None:
            return
        try:
            self._take(event)
        except ValueError as error:
            reason = error.reason if isinstance(error, FieldError) else str(error)
            # Marks are None only in events that no parser made.
            line = event.start_mark.line + 1 if event.start_mark else 0
            self.error = FieldError("", f"line {line}: {reason}")

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            if self._awaits_key():
                self._set_key(event)
            else:
                self._anchored(event.anchor, _scalar(event))
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise FieldError("", f"alias *{event.anchor} stands for nothing that came before it")
            self._put(self._copy(self._anchors[event.anchor], len(self._open)))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            if isinstance(closed.value, dict):
                self._merge(closed.value, closed.merged)
            self._anchored(closed.anchor, closed.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            mapping = isinstance(event, yaml.MappingStartEvent)
            if event.tag not in (None, "!", _TAG + ("map" if mapping else "seq")):
                raise FieldError("", f"tag {event.tag} is not supported")
            if self._awaits_key():
                raise FieldError("", "a key must be a single word, not a mapping or a list")
            if len(self._open) >= MAX_DEPTH:
                self.too_deep = True
                raise FieldError("", _TOO_DEEP)
            self._open.append(_Open({} if mapping else [], event.anchor))

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _set_key(self, event: yaml.ScalarEvent) -> None:
        mapping = self._open[-1]
        if event.value in mapping.value:
            raise FieldError("", f'key "{event.value}" is given twice')
        mapping.key = event.value

    def _anchored(self, anchor: str | None, value: Any) -> None:
        if anchor is not None:
            self._anchors[anchor] = value
        self._put(value)

    def _put(self, value: Any) -> None:
        if not self._open:
            self.value = value
            return
        parent = self._open[-1]
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key == _MERGE:
            parent.merged += value if isinstance(value, list) else [value]
            parent.key = None
        elif parent.key is None:
            raise FieldError("", "an alias cannot be a key")
        else:
            parent.value[parent.key] = value
            parent.key = None

    def _merge(self, value: dict[str, Any], merged: list[Any]) -> None:
        for other in merged:
            if not isinstance(other, dict):
                raise FieldError("", "only mappings can be merged with <<")
            for key, item in other.items():
                value.setdefault(key, item)

    def _copy(self, value: Any, depth: int) -> Any:
        self._aliased += 1
        if self._aliased > MAX_ALIASED:
            raise FieldError("", f"aliases stand for more than {MAX_ALIASED} values")
        if depth > MAX_DEPTH:
            raise FieldError("", _TOO_DEEP)
        if isinstance(value, dict):
            return {key: self._copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self._copy(item, depth + 1) for item in value]
        return value


def _scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    """What a scalar means by its form, unless it is quoted or its tag says otherwise."""
    plain, _ = event.implicit
    text: str = event.value
    if event.tag in (None, "!", _TAG + "str"):
        return _plain(text) if plain and event.tag is None else text
    value = _plain(text)
    expected = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(event.tag.removeprefix(_TAG))
    if expected is None:
        raise FieldError("", f"tag {event.tag} is not supported")
    if type(value) is not expected:
        raise FieldError("", f'"{text}" is not what its tag {event.tag} says')
    return value


def _plain(text: str) -> str | int | float | bool | None:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) <= _LONGEST_NUMBER:
        if _INT.fullmatch(text):
            digits = text.lstrip("0").lstrip("o")
            return int(text, 16) if "x" in text else int(digits, 8) if text[:1] == "0" and digits else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _unfit(value: Any, depth: int = 0) -> FieldError | None:
    """Why a value cannot be written as JSON that others read."""
    if isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            return FieldError("", _TOO_DEEP)
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            error = (_unfit(part) if isinstance(part, str) else None) or _unfit(item, depth + 1)
            if error is not None:
                return error.within(step(part))
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return FieldError("", "is not valid Unicode: it has half of a surrogate pair")
        return FieldError("", "contains a NUL character") if "\0" in value else None
    if isinstance(value, float) and not math.isfinite(value):
        return FieldError("", "is not a finite number")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return FieldError("", f"{one_line(str(value), 30)} does not fit 64 bits")
    return None


def is_json(data: bytes) -> bool:
    """Whether a manifest is meant as JSON rather than YAML."""
    return data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def write_yaml(values: Iterable[Any]) -> str:
    """Documents as YAML that both `read` and `kubectl` read back as they were."""
    return str(
        yaml.dump_all(
            values, Dumper=_Dumper, explicit_start=True, sort_keys=False, default_flow_style=False, allow_unicode=True
        )
    )


class _Dumper(yaml.SafeDumper):
    """Quotes what any reader of YAML might take for something else than a string; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Text over several lines stays readable; the emitter escapes what is not printable only in double quotes."""
        style = None
        if not text.replace("\n", "").isprintable():
            style = '"'
        elif "\n" in text:
            style = "|"
        elif text in _AMBIGUOUS or not isinstance(_plain(text), str):
            style = "'"
        return self.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
