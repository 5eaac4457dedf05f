"""The tests of the C logic once more, in processes in which AddressSanitizer watches all memory accesses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .native import sanitized

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
# The tests that load the C logic.
LOADS = re.compile(r"^from \.native import (?!MODULE$|sanitized$)", re.M)
TESTS = sorted(path.name for path in HERE.glob("test_*.py") if LOADS.search(path.read_text()))

# Reads the byte behind a buffer, or the last one in it.
PEEK = "#include <stddef.h>\nint peek(const unsigned char *data, size_t at) { return data[at]; }\n"
CALL = """
import ctypes, sys
from pathlib import Path
from tests.unit.sidecar.native import build

buffer = ctypes.create_string_buffer(int(sys.argv[2]))
peek = build(Path(sys.argv[1])).peek
peek.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
peek(buffer, int(sys.argv[3]))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, cwd=ROOT, env=sanitized()
    )


@pytest.mark.parametrize("name", TESTS)
def test_the_c_logic_touches_no_memory_that_is_not_its_own(name: str) -> None:
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"tests/unit/sidecar/{name}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


# A small buffer and one that is too large for Python's own allocator.
@pytest.mark.parametrize("size", [64, 4096])
def test_a_read_behind_the_end_of_a_buffer_ends_the_process(tmp_path: Path, size: int) -> None:
    source = tmp_path / "peek.c"
    source.write_text(PEEK)
    inside = python("-c", CALL, str(source), str(size), str(size - 1))
    assert inside.returncode == 0, inside.stderr
    outside = python("-c", CALL, str(source), str(size), str(size))
    assert outside.returncode != 0
    assert "heap-buffer-overflow" in outside.stderr
