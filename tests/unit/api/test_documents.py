from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.documents import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_DOCUMENTS,
    is_json,
    read,
    read_one,
    write_yaml,
)
from nginx_mesh.api.errors import FieldError


def only_value(text: str) -> Any:
    (document,) = read(text.encode())
    assert document.error is None
    return document.value


def only_error(data: bytes) -> str:
    (document,) = read(data)
    assert document.error is not None
    return str(document.error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", True),
        ("No", False),
        ("~", None),
        ("12", 12),
        ("-12", -12),
        ("0755", 0o755),
        ("0o755", 0o755),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("!!int 12", 12),
        ("=", "="),
    ],
)
def test_scalars_mean_what_kubectl_takes_them_for(text: str, value: object) -> None:
    found = only_value(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_strings_as_written() -> None:
    assert only_value("on: 1\n8080: 2\n0755: 3") == {"on": 1, "8080": 2, "0755": 3}


def test_documents_are_counted_and_empty_ones_left_out() -> None:
    documents = list(read(b"---\n---\na: 1\n---\n# nothing\n---\nb: 2\n"))
    assert [(document.number, document.value) for document in documents] == [(2, {"a": 1}), (4, {"b": 2})]


def test_json_objects_may_follow_each_other() -> None:
    assert [document.value for document in read(b'{"a": 1}\n{"a": "\\ud83d\\ude00"}')] == [{"a": 1}, {"a": "😀"}]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert only_value("\ufeff{}") == {}
    assert is_json(b'\xef\xbb\xbf {"a": 1}')


def test_an_error_in_one_document_leaves_the_others() -> None:
    documents = list(read(b"a: 1\n---\nb: 1\nb: 2\n---\nc: 3\n"))
    assert [document.value for document in documents if document.error is None] == [{"a": 1}, {"c": 3}]
    assert 'line 4: key "b" is given twice' in str(documents[1].error)


def test_merge_keys_fill_in_what_is_not_there() -> None:
    text = "base: &base {a: 1, b: 2}\nother: &other {b: 3, c: 4}\nmerged: {<<: [*base, *other], a: 0}"
    assert only_value(text)["merged"] == {"a": 0, "b": 2, "c": 4}


def test_aliases_are_copies() -> None:
    value = only_value("a: &a [1]\nb: *a")
    value["a"].append(2)
    assert value["b"] == [1]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
DEEP_BY_ALIASES = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2 * MAX_DEPTH))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a: \xff", "is not UTF-8: invalid start byte at byte 3"),
        (b"\xff\xfea\x00", "is not UTF-8"),
        (b"a: b: c", "is not YAML: line 1, column 5"),
        (b"a:\n\t- b", "is not YAML: line 2"),
        (b"a: \x00", "is not YAML"),
        (b'a: "\\0"', "a: contains a NUL character"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": [1e999]}', "a[0]: is not a finite number"),
        (b'{"a": 9223372036854775808}', "does not fit 64 bits"),
        (b"a: " + b"9" * 90, "does not fit 64 bits"),
        (b'{"a": 1, "a": 2}', 'key "a" is given twice'),
        (b"a: *b", "alias *b stands for nothing"),
        (b"a: &a [*a]", "alias *a stands for nothing"),
        (b"? [a]\n: b", "a key must be a single word"),
        (b"? {a: b}\n: b", "a key must be a single word"),
        (b"a: &a x\n*a : b", "an alias cannot be a key"),
        (b"a: {<<: [1]}", "only mappings can be merged"),
        (b"a: !!python/object/apply:os.system [id]", "is not supported"),
        (b"a: !!binary aGk=", "is not supported"),
        (b"a: !!int x", "is not what its tag"),
        (BOMB.encode(), "aliases stand for more than"),
        (DEEP_BY_ALIASES.encode(), "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b"- " * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b'{"a":' * MAX_DEPTH + b"[]" + b"}" * MAX_DEPTH, "nested deeper"),
        (b" " * (MAX_BYTES + 1), "is larger than 16 MiB"),
    ],
)
def test_what_cannot_be_read_has_an_error_that_says_why(data: bytes, reason: str) -> None:
    assert reason in only_error(data)


def test_a_manifest_has_a_limit_of_documents() -> None:
    for data in (b"---\na: 1\n" * 10_000, b'{"a": 1}' * 10_000):
        documents = list(read(data))
        assert len(documents) == MAX_DOCUMENTS + 1
        assert "more than 5000 documents" in str(documents[-1].error)


def test_a_file_of_one_document() -> None:
    assert read_one(b"a: 1", "f") == {"a": 1}
    for data in (b"", b"a: 1\n---\na: 2", b"a: ["):
        with pytest.raises(FieldError):
            read_one(data, "f")


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    for document in read(data):
        if document.error is None:
            json.dumps(document.value, allow_nan=False).encode()


TOKENS = ["a", "b", ":", "-", "?", "&x", "*x", "<<", "[", "]", "{", "}", ",", "!!str", "'", '"', "|", "---", "1"]
yaml_text = st.lists(st.sampled_from([*TOKENS, " ", "\n"])).map("".join)


@given(yaml_text)
def test_no_yaml_breaks_the_reader(text: str) -> None:
    for document in read(text.encode()):
        assert (document.error is None) != (document.value is None)


def _fits(text: str) -> bool:
    return "\0" not in text and text.encode(errors="replace").decode() == text


TRICKY = ["y", "N", "on", "1e3", "0o17", "0755", "1:30", "2020-01-01", "=", "<<", "~", "", "a\nb\n", " a\n", "\x85"]
texts = st.text().filter(_fits) | st.sampled_from(TRICKY)
keys = texts.filter(lambda key: key != "<<")
numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
    max_leaves=20,
)


@given(st.dictionaries(keys, trees))
def test_yaml_survives_being_written(value: dict[str, Any]) -> None:
    assert read_one(write_yaml([value]).encode(), "f") == value
    assert read_one(json.dumps(value).encode(), "f") == value
