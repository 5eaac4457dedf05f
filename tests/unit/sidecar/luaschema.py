"""The schema of the sidecar state as the sidecar's own Lua has it, asked in a real LuaJIT."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nginx_mesh.sidecar

MODULES = Path(nginx_mesh.sidecar.__file__).parent / "lua"
TESTS = Path(__file__).parent / "lua"


class LuaSchema:
    """A LuaJIT with schema.lua loaded, for the time of a `with` block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["luajit", "serve_schema.lua"],
            cwd=TESTS,
            env={**os.environ, "LUA_ROOT": str(MODULES)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)

    def shapes(self) -> Any:
        """All of schema/shapes.lua."""
        return self._ask({"shapes": True})

    def check_entry(self, key: str, entry: Any) -> str | None:
        """The reason why the sidecar refuses an entry; None when it takes it."""
        return self._reason({"key": key, "entry": entry})

    def check_update(self, update: Any) -> str | None:
        """The reason why the sidecar refuses an update, apart from its entries; None when it takes it."""
        return self._reason({"update": update})

    def _reason(self, question: dict[str, Any]) -> str | None:
        answer = self._ask(question)
        assert answer is None or isinstance(answer, str)
        return answer

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
