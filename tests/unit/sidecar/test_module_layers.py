"""The files of the C module depend on each other in one direction only."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from . import layers
from .native import MODULE

# From the bottom to the top. A file refers to files of lower layers only, not even to others of its own layer.
LAYERS = (
    # What knows nothing of nginx, and what Lua calls, which is declarations alone.
    {"breaker", "lb", "limit", "metric", "ngx_mesh_clock", "path", "protocol_detection", "split", "text", "trace"},
    {"ngx_mesh_lua", "report"},
    # What all may use.
    {"ngx_mesh_authorization", "ngx_mesh_log", "ngx_mesh_names", "ngx_mesh_strings"},
    {"ngx_mesh_settings"},
    # The tables, each below what it is found through.
    {"ngx_mesh_buckets", "ngx_mesh_clusters", "ngx_mesh_destinations", "ngx_mesh_regex", "ngx_mesh_totals"},
    {"ngx_mesh_breakers", "ngx_mesh_counts", "ngx_mesh_report", "ngx_mesh_rules"},
    {"ngx_mesh_limits", "ngx_mesh_splits"},
    {"ngx_mesh_policy", "ngx_mesh_route"},
    {"ngx_mesh_inbound"},
    # Identity on both sides of a handshake.
    {"ngx_mesh_svid", "ngx_mesh_tls"},
    {"ngx_mesh_bundles"},
    {"ngx_mesh_identity"},
    {"ngx_mesh_handshake"},
    # Connections, and their way to an endpoint.
    {"ngx_mesh_balancer", "ngx_mesh_connection"},
    {"ngx_mesh_tcp_access", "ngx_mesh_variables"},
    # HTTP and stream, which know nothing of each other. Each has a header that its files share.
    {"ngx_http_mesh", "ngx_stream_mesh"},
    {"ngx_http_mesh_request", "ngx_http_mesh_trace", "ngx_stream_mesh_session"},
    {"ngx_http_mesh_outcome", "ngx_http_mesh_report", "ngx_http_mesh_variables", "ngx_stream_mesh_variables"},
    {"ngx_http_mesh_filters", "ngx_http_mesh_log", "ngx_http_mesh_upstream", "ngx_stream_mesh_upstream"},
    {"ngx_http_mesh_access", "ngx_http_mesh_explain", "ngx_http_mesh_lua", "ngx_stream_mesh_access"},
    {"ngx_stream_mesh_log", "ngx_stream_mesh_sort"},
    {"ngx_http_mesh_module", "ngx_stream_mesh_module"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The headers that the files of one part share.
PRIVATE = {"ngx_http_mesh", "ngx_stream_mesh"}
# nginx finds what a module keeps with a request by the address of the module, which every file therefore names.
KEYS = {"ngx_http_mesh_module", "ngx_stream_mesh_module"}


def wrong_references(module: Path) -> list[str]:
    """What goes upwards or sideways in the module's layers, or from HTTP to stream or back."""
    pairs = [(name, other, f"{name} includes {other}.h") for name, other in layers.includes(module)]
    pairs += [
        (name, other, f"{name} refers to {symbol} of {other}")
        for name, other, symbol in layers.symbols(module)
        if symbol not in KEYS
    ]
    return [text for name, other, text in pairs if LEVEL[name] <= LEVEL[other] or _crosses(name, other)]


def _crosses(name: str, other: str) -> bool:
    return {name[:9], other[:9]} >= {"ngx_http_", "ngx_strea"}


def test_files_refer_to_lower_layers_only() -> None:
    assert wrong_references(MODULE) == []


def test_every_file_has_a_layer_and_is_built() -> None:
    assert set(LEVEL) == {path.stem for path in layers.files(MODULE)}
    assert len(LEVEL) == sum(map(len, LAYERS)), "a file is in two layers"
    config = (MODULE / "config").read_text()
    listed = re.findall(r"\$ngx_addon_dir/([\w.]+)", config)
    assert sorted(listed) == sorted(path.name for path in layers.files(MODULE))


def test_a_file_includes_the_headers_of_what_it_refers_to() -> None:
    words = {path.stem: set(re.findall(r"\w+", layers.code(path))) for path in MODULE.glob("*.h")}
    declared = {symbol: {name for name in words if symbol in words[name]} for symbol in layers.definitions(MODULE)}
    included: dict[str, set[str]] = {}
    for name, other in layers.includes(MODULE):
        included.setdefault(name, set()).add(other)
    for name, other, symbol in layers.symbols(MODULE):
        # A file has also what its own header includes, and the header of its part (HTTP or stream).
        own = included[name].union(*(included.get(header, set()) for header in included[name] & PRIVATE))
        assert declared[symbol] & own, f"{name} refers to {symbol} of {other} without its header"


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        # The circles that there once were.
        ("ngx_mesh_settings.c", "void f(void) { ngx_stream_mesh_access_init(); }", "ngx_stream_mesh_access_init"),
        ("ngx_mesh_policy.c", "ngx_uint_t f(void) { return ngx_mesh_inbound_find(1); }", "ngx_mesh_inbound_find"),
        ("ngx_mesh_clusters.c", '#include "ngx_mesh_counts.h"', "ngx_mesh_counts.h"),
        ("ngx_mesh_clusters.h", '#include "ngx_mesh_counts.h"', "ngx_mesh_counts.h"),
        # And what has never been there.
        ("ngx_http_mesh_access.c", '#include "ngx_stream_mesh.h"', "ngx_stream_mesh.h"),
        ("lb.c", "int f(void) { return limit_admits(0, 0, 0); }", "limit_admits"),
    ],
)
def test_a_reference_upwards_or_sideways_is_noticed(tmp_path: Path, file: str, line: str, found: str) -> None:
    module = shutil.copytree(MODULE, tmp_path / "module")
    text = (module / file).read_text()
    (module / file).write_text(f"{text}\n{line}\n")
    wrong = wrong_references(module)
    assert len(wrong) == 1
    assert found in wrong[0]


def test_what_is_in_comments_and_strings_is_no_reference(tmp_path: Path) -> None:
    module = shutil.copytree(MODULE, tmp_path / "module")
    with (module / "lb.c").open("a") as file:
        file.write('/* limit_admits() */\nconst char  *f(void) { return "limit_admits()"; }\n')
    assert wrong_references(module) == []
