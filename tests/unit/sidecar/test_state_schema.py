"""The sidecar's Lua and the Structs in Python describe one and the same state.

Both are read as they are, so that a field, a type, a value or a bound that only one side has fails here; copies of
either side with one thing changed prove that. Then states made at random are given to the real Lua.
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .luaschema import LuaSchema
from .stateshapes import STATE, Shape, of_lua, of_python

_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_IPV4 = st.ip_addresses(v=4).map(str)
_IPV6 = st.ip_addresses(v=6).map(str)
_PORTS = st.integers(1, 65535)
_FORMATS = {
    "text": _TEXTS,
    "ip": _IPV4 | _IPV6,
    "address": st.builds("{}:{}".format, _IPV4, _PORTS) | st.builds("[{}]:{}".format, _IPV6, _PORTS),
    "trust_domain": st.from_regex(r"\A[a-z0-9._-]{1,255}\Z"),
    "port": _PORTS.map(str),
    "path": st.builds("/{}".format, _TEXTS),
}
# Values that are of another type than a shape's.
_OTHERS = {
    "string": (5, True, {}),
    "boolean": ("true", 1, {}),
    "integer": ("5", True, 1.5, {}),
    "number": ("5", True, {}),
    "list": ("a", 5, {"a": 1}),
    "map": ("a", 5, ["a"]),
    "struct": ("a", 5),
}


@pytest.fixture(scope="module")
def lua() -> Iterator[LuaSchema]:
    with LuaSchema() as schema:
        yield schema


@pytest.fixture(scope="module")
def shapes(lua: LuaSchema) -> Any:
    return lua.shapes()


def test_lua_and_python_have_the_same_schema(shapes: Any) -> None:
    assert of_lua(shapes) == of_python(STATE)


# One thing changed in Lua


def _structs(shape: Shape) -> Iterator[Shape]:
    if shape["type"] == "struct":
        yield shape
        for field in (*shape["required"].values(), *shape["optional"].values()):
            yield from _structs(field)
    for inner in ("items", "values"):
        if inner in shape:
            yield from _structs(shape[inner])


def _changes_of_lua(shape: Shape, fields: str, name: str) -> Iterator[str]:
    """Change one field of a struct in place, in one way after another."""
    other = "optional" if fields == "required" else "required"
    original = shape[fields].pop(name)
    yield "removed"
    shape[other][name] = original
    yield f"made {other}"
    del shape[other][name]
    leaf = original
    while leaf.get("items") or leaf.get("values"):
        leaf = leaf.get("items") or leaf["values"]
    for changed in _changed_shapes(leaf):
        saved = dict(leaf)
        leaf.clear()
        leaf.update(changed)
        shape[fields][name] = original
        yield f"changed to {changed}"
        leaf.clear()
        leaf.update(saved)
    shape[fields][name] = {"type": "list", "items": original}
    yield "made a list"
    shape[fields][name] = {**original, "nullable": not original.get("nullable", False)}
    yield "null is allowed, or no longer"
    shape[fields][name] = original
    shape[fields]["added"] = {"type": "string"}
    yield "another added"
    del shape[fields]["added"]


def _changed_shapes(leaf: Shape) -> Iterator[Shape]:
    yield {"type": "boolean" if leaf["type"] == "string" else "string"}
    if "enum" in leaf:
        yield {**leaf, "enum": [*leaf["enum"], "added"]}
        yield {**leaf, "enum": leaf["enum"][1:]}
    if "low" in leaf:
        yield {**leaf, "low": str(float(leaf["low"]) + 1)}
        yield {**leaf, "high": str(float(leaf["high"]) - 1)}


def test_a_change_in_lua_alone_is_noticed(shapes: Any) -> None:
    mutable = copy.deepcopy(shapes)
    python = of_python(STATE)
    seen = set()
    roots = {**mutable["SINGLE"], **mutable["KEYED"], "update": mutable["UPDATE"]}
    for kind, root in roots.items():
        for shape in _structs(root):
            for fields in ("required", "optional"):
                for name in list(shape[fields]):
                    for change in _changes_of_lua(shape, fields, name):
                        assert of_lua(mutable) != python, f"{kind}: {name} {change}"
                        seen.add((kind, name))
    assert of_lua(mutable) == python
    assert len(seen) > 40


def test_a_kind_of_entry_in_lua_alone_is_noticed(shapes: Any) -> None:
    for kind in shapes["KEYED"]:
        less = copy.deepcopy(shapes)
        more = copy.deepcopy(shapes)
        more["KEYED"]["added"] = less["KEYED"].pop(kind)
        assert of_lua(less) != of_python(STATE)
        assert of_lua(more) != of_python(STATE)


# One thing changed in Python


@contextmanager
def _module(tree: ast.Module) -> Iterator[ModuleType]:
    """The module that a changed copy of the source makes."""
    name = f"{STATE.__name__}_changed"
    module = ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(ast.fix_missing_locations(tree), name, "exec"), module.__dict__)  # noqa: S102 - our own source
        yield module
    finally:
        del sys.modules[name]


def _changes_of_python(field: ast.AnnAssign) -> Iterator[tuple[str, list[ast.stmt]]]:
    """What may stand in the place of a field in a class, other than the field."""
    yield "removed", [ast.Pass()]
    yield "another added", [field, ast.parse("added: str = ''").body[0]]
    value = None if field.value else ast.parse("None").body[0].value  # type: ignore[attr-defined]
    yield "made optional or required", [ast.AnnAssign(field.target, field.annotation, value, field.simple)]
    written = ast.unparse(field.annotation)
    for annotation in _other_annotations(written):
        parsed = ast.parse(annotation, mode="eval").body
        yield f"changed to {annotation}", [ast.AnnAssign(field.target, parsed, field.value, field.simple)]


def _other_annotations(written: str) -> Iterator[str]:
    yield "bool" if written == "str" else "str"
    if written == "str":
        yield "Annotated[str, msgspec.Meta(min_length=1)]"
    yield f"list[{written}]"
    if written.endswith(" | None"):
        yield written.removesuffix(" | None")
    else:
        yield f"{written} | None"
    leaf = written.removesuffix(" | None")
    if "Raw" in leaf:
        return
    info = msgspec.inspect.type_info(eval(leaf, STATE.__dict__))  # noqa: S307 - an annotation of our own source
    match info:
        case msgspec.inspect.LiteralType(values=values):
            yield f"Literal[{', '.join(map(repr, (*values, 'added')))}]"
            yield f"Literal[{', '.join(map(repr, values[1:]))}]"
        case msgspec.inspect.EnumType(cls=cls):
            yield f"Literal[{', '.join(repr(member.value) for member in list(cls)[1:])}]"
        case msgspec.inspect.IntType(ge=low, le=high) | msgspec.inspect.FloatType(ge=low, le=high):
            assert low is not None
            assert high is not None
            kind = "int" if isinstance(info, msgspec.inspect.IntType) else "float"
            yield written.replace(leaf, f"Annotated[{kind}, msgspec.Meta(ge={low + 1}, le={high})]")
            yield written.replace(leaf, f"Annotated[{kind}, msgspec.Meta(ge={low}, le={high - 1})]")


def test_a_change_in_python_alone_is_noticed(shapes: Any) -> None:
    lua = of_lua(shapes)
    source = inspect.getsource(STATE)
    with _module(ast.parse(source)) as same:
        assert of_python(same) == lua
    structs = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    tried = 0
    for number, struct in enumerate(structs):
        for at, statement in enumerate(struct.body):
            if not isinstance(statement, ast.AnnAssign):
                continue
            assert isinstance(statement.target, ast.Name)
            for change, instead in _changes_of_python(statement):
                tree = ast.parse(source)
                changed = [node for node in tree.body if isinstance(node, ast.ClassDef)][number]
                changed.body[at : at + 1] = instead
                with _module(tree) as module:
                    assert of_python(module) != lua, f"{struct.name}.{statement.target.id} {change}"
                tried += 1
    assert tried > 200


# States made at random


def _values(shape: Shape) -> st.SearchStrategy[Any]:
    """Values of a shape."""
    strategy = _values_but_null(shape)
    return st.none() | strategy if shape.get("nullable") else strategy


def _values_but_null(shape: Shape) -> st.SearchStrategy[Any]:
    match shape["type"]:
        case "string":
            return st.sampled_from(shape["enum"]) if "enum" in shape else _FORMATS[shape.get("format", "text")]
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(int(shape["low"]), int(shape["high"]))
        case "number":
            return st.floats(float(shape["low"]), float(shape["high"]))
        case "list":
            return st.lists(_values(shape["items"]), max_size=2)
        case "map":
            return st.dictionaries(_FORMATS[shape.get("key_format", "text")], _values(shape["values"]), max_size=2)
        case "struct":
            fixed = st.fixed_dictionaries(
                {name: _values(field) for name, field in shape["required"].items()},
                optional={name: _values(field) for name, field in shape["optional"].items()},
            )
            if "rule" in shape:
                assert shape["rule"] == "mtls_needs_spiffe_id"
                return fixed.map(lambda value: {**value, "spiffe_id": value.get("spiffe_id") or "spiffe://a/b"})
            return fixed
        case "any":
            return st.just({})
    raise AssertionError(shape)


def _keys(shapes: Any, kind: str) -> st.SearchStrategy[str]:
    if kind in shapes["SINGLE"]:
        return st.just(kind)
    return _FORMATS[shapes["KEY_FORMATS"][kind]].filter(bool).map(f"{kind}/{{}}".format)


def _entries(shapes: Any) -> st.SearchStrategy[tuple[str, str, Any]]:
    """Kind, key and entry."""
    kinds = {**shapes["SINGLE"], **shapes["KEYED"]}
    return st.one_of(
        [st.tuples(st.just(kind), _keys(shapes, kind), _values(shape)) for kind, shape in sorted(kinds.items())]
    )


def _spoilt(shape: Shape, value: Any) -> Iterator[Any]:
    """Copies of a value in each of which one thing is wrong."""
    yield from _OTHERS.get(shape["type"], ())
    if value is None:
        return
    if not shape.get("nullable") and shape["type"] != "any":
        yield None
    match shape["type"]:
        case "string" if "enum" in shape:
            yield from ("", "added", shape["enum"][0].upper())
        case "integer" | "number":
            yield float(shape["low"]) - 1
            yield float(shape["high"]) * 2
        case "list":
            for at, item in enumerate(value):
                yield from ([*value[:at], bad, *value[at + 1 :]] for bad in _spoilt(shape["items"], item))
        case "map":
            for key, item in value.items():
                yield from ({**value, key: bad} for bad in _spoilt(shape["values"], item))
        case "struct":
            yield {**value, "added": 1}
            yield from ({k: v for k, v in value.items() if k != name} for name in shape["required"])
            for name, field in {**shape["required"], **shape["optional"]}.items():
                if name in value:
                    yield from ({**value, name: bad} for bad in _spoilt(field, value[name]))


def _python_takes(kind: str, entry: Any) -> bool:
    structs = {struct.__name__.lower(): struct for struct in get_args(STATE.StateEntry)}
    try:
        msgspec.convert(entry, structs[kind])
    except msgspec.ValidationError:
        return False
    return True


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_valid_entries_are_taken_and_spoilt_ones_refused(lua: LuaSchema, shapes: Any, data: st.DataObject) -> None:
    kind, key, entry = data.draw(_entries(shapes))
    assert lua.check_entry(key, entry) is None
    assert _python_takes(kind, entry)
    shape = {**shapes["SINGLE"], **shapes["KEYED"]}[kind]
    for bad in _spoilt(shape, entry):
        assert lua.check_entry(key, bad) is not None, bad
        assert not _python_takes(kind, bad), bad


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_valid_updates_are_taken_and_spoilt_ones_refused(lua: LuaSchema, shapes: Any, data: st.DataObject) -> None:
    update = data.draw(_values(shapes["UPDATE"]))
    assert lua.check_update(update) is None
    for bad in _spoilt(shapes["UPDATE"], update):
        assert lua.check_update(bad) is not None, bad
