"""Lua's declarations of the C module agree with the module's headers, and its tables with their numbers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from . import layers
from .luadeclarations import LUA, NGINX, cdefs, compile_c, declaration_checks, number_checks, read_lua
from .native import MODULE

TEXT = read_lua(LUA)


def test_declarations_of_lua_are_those_of_the_headers() -> None:
    assert compile_c(declaration_checks(cdefs(TEXT))) == ""


def test_numbers_of_lua_are_those_of_the_headers() -> None:
    checks = number_checks(TEXT)
    assert compile_c(checks) == ""
    for some in ("NGX_MESH_STRICT", "NGX_MESH_LOG_WARN", "LB_LEAST_TIME_LAST_BYTE_INFLIGHT", "BREAKER_HALF_OPEN"):
        assert f"({some} == " in checks
    for some in ("NGX_MESH_TOTAL_5XX", "NGX_MESH_FIRST_BYTE_TIME", "NGX_MESH_TCP_FAILS", "NGX_MESH_RC_ABORT"):
        assert f"({some} == " in checks
    assert "(NGX_MESH_PROTOCOL_TCP == " in checks


def test_lua_declares_all_that_the_module_offers_it_and_nothing_else() -> None:
    declared = set(cdefs(TEXT).others)
    offered = set(re.findall(r"\b(ngx_(?:http_)?mesh_ffi_\w+)\(", layers.code(MODULE / "ngx_mesh_lua.h")))
    assert declared - NGINX - {"metric_bounds", "ngx_mesh_now_us"} == offered
    defined = layers.definitions(MODULE)
    assert offered <= set(defined)
    included = set(layers.includes(MODULE))
    for name in offered:
        # The compiler compares a definition with a declaration that it sees.
        headers = {defined[name], *(other for file, other in included if file == defined[name])}
        assert any((header, "ngx_mesh_lua") in included for header in headers), f"{name} is defined unseen"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # A parameter of another width, one too few, another result, a function that is not there.
        ("uintptr_t log_level, int64_t body_limit);", "uintptr_t log_level, int32_t body_limit);"),
        ("intptr_t ngx_mesh_ffi_limit_address(ngx_mesh_limit_t *limit, const char *address, size_t len);", "*, size_t"),
        ("int ngx_http_mesh_ffi_peer(", "size_t ngx_http_mesh_ffi_peer("),
        ("void ngx_mesh_ffi_identity_clear(void);", "void ngx_mesh_ffi_identity_forget(void);"),
        # A field of another type, two that changed places, one that is missing, an array that is shorter.
        ("uint32_t                usable;", "int32_t                 usable;"),
        ("uint64_t            excess;\n    uint64_t            wait;", "uint64_t wait;\n    uint64_t excess;"),
        ("    uintptr_t           tcp;\n", ""),
        ("numbers[16]", "numbers[15]"),
        ("metric_bounds[13]", "metric_bounds[12]"),
    ],
)
def test_a_declaration_that_differs_does_not_compile(old: str, new: str) -> None:
    if new == "*, size_t":
        new = old.replace("const char *address, ", "")
    assert TEXT.count(old) == 1
    assert compile_c(declaration_checks(cdefs(TEXT.replace(old, new)))) != ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"(MTLS_MODES = \{ off = )0, permissive = 1", r"\g<1>1, permissive = 0"),
        (r"(\bwarn = )5", r"\g<1>6"),
        (r'(\["random two"\] = )6', r"\g<1>7"),
        (r'("closed", \[1\] = )"open"', r'\g<1>"half-open"'),
        (r'"client_ok",(\s+)"client_failed"', r'"client_failed",\1"client_ok"'),
        (r'(TCP_NUMBERS = \{ "connections", )"sent", "received"', r'\1"received", "sent"'),
        (r'"connect_time", "first_byte_time"', '"first_byte_time", "connect_time"'),
    ],
)
def test_a_number_that_differs_does_not_compile(old: str, new: str) -> None:
    text, count = re.subn(old, new, TEXT)
    assert count == 1
    assert compile_c(number_checks(text)) != ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("NGX_MESH_TOTAL_1XX,", "NGX_MESH_TOTAL_0XX, NGX_MESH_TOTAL_1XX,"),
        ("uint64_t                excess;", "uint32_t excess;"),
        ("uintptr_t ngx_http_mesh_ffi_allowed(", "int ngx_http_mesh_ffi_allowed("),
    ],
)
def test_a_header_that_changes_alone_does_not_compile(tmp_path: Path, old: str, new: str) -> None:
    module = shutil.copytree(MODULE, tmp_path / "module")
    header = module / "ngx_mesh_lua.h"
    text = header.read_text()
    assert text.count(old) == 1
    header.write_text(text.replace(old, new))
    assert compile_c(declaration_checks(cdefs(TEXT)) + number_checks(TEXT), module) != ""
