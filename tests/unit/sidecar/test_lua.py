"""The sidecar's Lua, tested in Lua: each file in lua/ is run by busted under the real LuaJIT."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import nginx_mesh.sidecar

MODULES = Path(nginx_mesh.sidecar.__file__).parent / "lua"
TESTS = Path(__file__).parent / "lua"


def busted(file: Path) -> subprocess.CompletedProcess[str]:
    """Run one file of tests. The answer is in the Test Anything Protocol."""
    program = shutil.which("busted")
    assert program is not None, "busted is not installed: run `make setup-dev`"
    return subprocess.run(
        ["luajit", program, "--output=TAP", f"--lpath={TESTS}/?.lua", str(file)],
        env={**os.environ, "LUA_ROOT": str(MODULES)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in TESTS.glob("test_*.lua")))
def test_in_lua(name: str) -> None:
    done = busted(TESTS / f"{name}.lua")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "\nok 1 " in f"\n{done.stdout}", f"it has no tests: {output}"


def test_a_failure_in_lua_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "test_fails.lua"
    file.write_text('describe("a test", function() it("fails", function() assert.equal(1, 2) end) end)\n')
    done = busted(file)
    assert done.returncode != 0
    assert "not ok 1" in done.stdout
