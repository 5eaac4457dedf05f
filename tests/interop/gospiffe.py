"""Programs built on go-spiffe, an implementation of the SPIFFE standards that we did not write."""

import asyncio
import fcntl
import functools
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parent / "go"
BUILD = Path(__file__).parents[2] / "build" / "interop"

_OLDEST_GO = (1, 21)


@functools.cache
def program() -> Path:
    """The program in go/, built once (20 s with nothing cached). Skips the test where there is no Go compiler."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("needs the Go compiler")
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found is not None and (int(found[1]), int(found[2])) < _OLDEST_GO:
        pytest.skip(f"needs Go 1.21, which fetches what it needs by itself; this is {version.strip()}")
    BUILD.mkdir(parents=True, exist_ok=True)
    binary = BUILD / "spiffe-interop"
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [go, "build", "-mod=readonly", "-o", str(binary), "."],
            cwd=SOURCE,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, f"go build: {done.stderr}"
    return binary


class Running:
    """A command that is running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> Any:
        """The next line of JSON."""
        assert self._process.stdout is not None
        text = await asyncio.wait_for(self._process.stdout.readline(), 60)
        if not text:
            assert self._process.stderr is not None
            raise AssertionError((await self._process.stderr.read()).decode())
        return json.loads(text)

    def send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())


@asynccontextmanager
async def running(*arguments: object) -> AsyncIterator[Running]:
    """A command, ended with the block."""
    binary = await asyncio.to_thread(program)
    pipe = asyncio.subprocess.PIPE
    words = [str(argument) for argument in arguments]
    process = await asyncio.create_subprocess_exec(str(binary), *words, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def output(*arguments: object) -> Any:
    """The one line that a command prints."""
    async with running(*arguments) as command:
        return await command.line()
