"""Both schemas of the sidecar state in one form, so that they can be compared.

A shape is a dict with `type`; `nullable` when null is allowed; `enum` (a sorted list), `low` and `high`, `items` of a
list, `values` of a map, `required` and `optional` of a struct. Types and constraints that no sidecar knows are
"unsupported". What only Lua checks (formats of texts, rules) is left out.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, get_args

import msgspec
from msgspec import inspect

from nginx_mesh.protocol import state as state_module

STATE: ModuleType = state_module

Shape = dict[str, Any]


def of_python(module: ModuleType) -> Shape:
    """The shapes of all kinds of entries, and of the update, by kind: what a module like protocol/state.py declares."""
    kinds = {entry.__name__.lower(): entry for entry in get_args(module.StateEntry)}
    return {name: _of_struct(struct) for name, struct in {**kinds, "update": module.Update}.items()}


def of_lua(shapes: Any) -> Shape:
    """The same of what LuaSchema.shapes() gives."""
    kinds = {**shapes["SINGLE"], **shapes["KEYED"], "update": shapes["UPDATE"]}
    return {name: _of_lua_shape(shape) for name, shape in kinds.items()}


def _of_struct(struct: type[msgspec.Struct]) -> Shape:
    found: Shape = {"type": "struct", "required": {}, "optional": {}}
    for field in msgspec.structs.fields(struct):
        found["required" if field.required else "optional"][field.encode_name] = _of_annotation(field.type)
    return found


def _of_annotation(annotation: Any) -> Shape:
    # Entries of an update are checked by their keys. msgspec itself has no type for a union of Structs.
    arguments = get_args(annotation)
    if len(arguments) == 2 and msgspec.Raw in get_args(arguments[1]):
        return {"type": "map", "values": {"type": "any"}}
    try:
        return _of_type(inspect.type_info(annotation))
    except TypeError:
        return {"type": "unsupported"}


def _of_type(info: inspect.Type) -> Shape:
    match info:
        case inspect.UnionType(types=types):
            (other,) = (each for each in types if not isinstance(each, inspect.NoneType))
            return {**_of_type(other), "nullable": True}
        case inspect.StructType(cls=struct):
            return _of_struct(struct)
        case inspect.ListType(item_type=item_type, min_length=None, max_length=None):
            return {"type": "list", "items": _of_type(item_type)}
        case inspect.DictType(key_type=inspect.StrType(), value_type=value_type, min_length=None, max_length=None):
            return {"type": "map", "values": _of_type(value_type)}
        case inspect.LiteralType(values=values):
            return {"type": "string", "enum": sorted(map(str, values))}
        case inspect.EnumType(cls=cls):
            return {"type": "string", "enum": sorted(member.value for member in cls)}
        case inspect.StrType(min_length=None, max_length=None, pattern=None):
            return {"type": "string"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType(ge=low, le=high, gt=None, lt=None, multiple_of=None):
            return {"type": "integer", "low": low, "high": high}
        case inspect.FloatType(ge=low, le=high, gt=None, lt=None, multiple_of=None):
            return {"type": "number", "low": low, "high": high}
    return {"type": "unsupported"}


def _of_lua_shape(shape: Shape) -> Shape:
    found: Shape = {"type": shape["type"]}
    if "nullable" in shape:
        found["nullable"] = shape["nullable"]
    if "enum" in shape:
        found["enum"] = sorted(shape["enum"])
    for bound in ("low", "high"):
        if bound in shape:
            found[bound] = float(shape[bound])
    for inner in ("items", "values"):
        if inner in shape:
            found[inner] = _of_lua_shape(shape[inner])
    for fields in ("required", "optional"):
        if fields in shape:
            found[fields] = {name: _of_lua_shape(field) for name, field in shape[fields].items()}
    return found
