"""What Lua repeats of the C module, `ffi.cdef` blocks and tables of numbers, as C that a compiler checks."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import nginx_mesh.sidecar

from .native import MODULE

LUA = Path(nginx_mesh.sidecar.__file__).parent / "lua" / "mesh"
# What Lua reads of nginx itself: its headers declare it, and need nginx to be compiled.
NGINX = {"ngx_pagesize", "ngx_stat_accepted", "ngx_stat_handled"}

_HEADERS = ("ngx_mesh_lua.h", "breaker.h", "lb.h", "metric.h")
_CDEF = re.compile(r"\bffi\.cdef\s*\[(=*)\[(.*?)\]\1\]", re.S)
_STRUCT = re.compile(r"typedef struct \{(.*)\} (\w+)$", re.S)
_FORWARD = re.compile(r"typedef struct \w+ \w+$")
_NAME = re.compile(r"(\w+)(?:\(.*\)|\[\d+\])?$", re.S)
_FIELD = re.compile(r"(\w+)(?:\[\w+\])?$")

# Lua's tables by their names, and how their keys are called in C.
_TABLES = {
    "MTLS_MODES": "NGX_MESH_{}",
    "LOG_LEVELS": "NGX_MESH_LOG_{}",
    "LB_METHODS": "LB_{}",
    "BREAKER_STATES": "BREAKER_{}",
    "TOTALS": "NGX_MESH_TOTAL_{}",
    "TCP_TIMES": "NGX_MESH_{}",
    "PROTOCOL_BITS": "NGX_MESH_PROTOCOL_{}",
}
# What Lua calls the results of ngx_http_mesh_ffi_select, and their names in C.
_SELECTED = {"ok": "OK", "unknown": "DECLINED", "empty": "BUSY", "open": "ABORT"}


@dataclass
class Cdefs:
    """The declarations of all `ffi.cdef` blocks."""

    structs: dict[str, list[str]] = field(default_factory=dict)
    """The fields of each structure, as they are declared."""
    forwards: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    """Functions and variables by their names."""


def read_lua(lua: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(lua.rglob("*.lua")))


def cdefs(text: str) -> Cdefs:
    """Read the blocks in Lua code. Fails when one of them is not a literal."""
    blocks = [block for _, block in _CDEF.findall(text)]
    assert len(blocks) == len(re.findall(r"\.cdef\b", text)), "a cdef is not read"
    found = Cdefs()
    for declaration in _declarations(re.sub(r"/\*.*?\*/|//[^\n]*", " ", "\n".join(blocks), flags=re.S)):
        if struct := _STRUCT.match(declaration):
            found.structs[struct[2]] = [line.strip() for line in struct[1].split(";") if line.strip()]
        elif _FORWARD.match(declaration):
            found.forwards.append(declaration)
        else:
            name = _NAME.search(declaration)
            assert name, declaration
            found.others[name[1]] = declaration
    return found


def _declarations(text: str) -> list[str]:
    """What stands between semicolons that are in no braces."""
    parts, depth = [""], 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == ";" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def declaration_checks(found: Cdefs) -> str:
    """C that compiles when the headers declare everything just so.

    A structure of Lua's gets another name, and its size and the place and type of each field are compared. A function
    or variable is declared again, which is an error when its type is another one.
    """
    lines = [*found.forwards]
    for name, fields in found.structs.items():
        lines += [f"typedef struct {{ {'; '.join(fields)}; }} lua_{name}"]
        lines += [_assertion(f"sizeof(lua_{name}) == sizeof({name})", name)]
        for declared in fields:
            member = _FIELD.search(declared)
            assert member, declared
            where = f"{name}.{member[1]}"
            lines += [
                _assertion(f"offsetof(lua_{name}, {member[1]}) == offsetof({name}, {member[1]})", where),
                _assertion(
                    f"__builtin_types_compatible_p(__typeof__(((lua_{name} *) 0)->{member[1]}), "
                    f"__typeof__((({name} *) 0)->{member[1]}))",
                    where,
                ),
            ]
    for name, declaration in found.others.items():
        if name not in NGINX:
            lines += [f"extern __typeof__({name}) {name}", declaration]
    return ";\n".join(lines) + ";\n"


def number_checks(text: str) -> str:
    """C that compiles when the numbers in Lua's tables are those of the headers."""
    lines = []
    for name, pattern in _TABLES.items():
        for key, number in _table(text, name):
            known = pattern.format(_c_name("http" if key == "grpc" else key))
            lines.append(_assertion(f"{known} == {number}", f"{name}: {key}"))
    for key, number in _table(text, "SELECTED"):
        lines.append(_assertion(f"NGX_MESH_RC_{_SELECTED[key]} == {number}", f"SELECTED: {key}"))
    # Lua reads the numbers of HTTP and those of TCP from one array.
    names = [*_keys(text, "HTTP_NUMBERS", "NGX_MESH_HTTP_{}"), *_keys(text, "TCP_NUMBERS", "NGX_MESH_TCP_{}")]
    lines += [_assertion(f"{name} == {number}", name) for number, name in enumerate(names)]
    return ";\n".join(lines) + ";\n"


def _keys(text: str, table: str, pattern: str) -> list[str]:
    return [pattern.format(_c_name(key)) for key, _ in _table(text, table)]


def _c_name(text: str) -> str:
    return re.sub(r"\W", "_", text).upper()


def _assertion(condition: str, what: str) -> str:
    return f'_Static_assert({condition}, "{what}")'


def _table(text: str, name: str) -> list[tuple[str, int]]:
    """The names and numbers of a table, whichever of them are its keys; a list is numbered from 0 on, as C does."""
    found = []
    for body in re.findall(rf"\b{name} = \{{(.*?)\}}", text, re.S):
        items = [item.strip() for item in re.sub(r"--[^\n]*", "", body).split(",")]
        for position, item in enumerate(filter(None, items)):
            key, _, value = item.rpartition(" = ")
            key = key.strip("[]")
            if value.startswith('"'):
                found.append((value.strip('"'), int(key) if key else position))
            else:
                found.append((key.strip('"'), int(value, 0)))
    return found


def compile_c(source: str, include: Path = MODULE) -> str:
    """What the compiler says about C code that includes the module's headers; empty when it compiles."""
    headers = "".join(f'#include "{header}"\n' for header in _HEADERS)
    flags = ["-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        ["gcc", *flags, f"-I{include}", "-xc", "-"], check=False, capture_output=True, text=True, input=headers + source
    )
    return done.stderr if done.returncode else ""
