"""Peers are run as tests in pods run them: as programs that speak JSON on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PEERS = Path(__file__).parents[2] / "mesh" / "peers"


class Server(NamedTuple):
    """A running server."""

    port: int
    pid: int


Start = Callable[..., Server]
Call = Callable[..., Any]


def _command(program: str, arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, str(PEERS / f"{program}.py"), *map(str, arguments)]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(program, *arguments)` runs a server on loopback until the test ends; says where."""
    running: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: object) -> Server:
        command = _command(program, ("--host", "127.0.0.1", "--port", 0, *arguments))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        return Server(json.loads(process.stdout.readline())["port"], process.pid)

    yield run
    for process in running:
        process.terminate()
    for process in running:
        process.communicate(timeout=10)


@pytest.fixture
def call() -> Call:
    """`call(program, *arguments)` runs a client and returns what it printed; its exit code must be 1 when `failing`."""

    def run(program: str, *arguments: object, failing: bool = False) -> Any:
        done = subprocess.run(_command(program, arguments), capture_output=True, text=True, timeout=60)
        assert done.returncode == int(failing), done.stdout + done.stderr
        return json.loads(done.stdout)

    return run
