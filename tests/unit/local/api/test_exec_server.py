"""Commands run for another process, with that process's own files."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nginx_mesh.cli.errors import ApiError, ControlPlaneUnreachableError
from nginx_mesh.cli.local import exec as client
from nginx_mesh.local.api.exec_server import ExecAnswer, ExecRequest, ExecServer


async def run(request: ExecRequest, files: list[int]) -> ExecAnswer:
    if request.pod == "none":
        return ExecAnswer(error='pods "none" not found', reason="NotFound")
    stdin, stdout, stderr = files
    process = await asyncio.create_subprocess_exec(*request.command, stdin=stdin, stdout=stdout, stderr=stderr)
    try:
        return ExecAnswer(exit_code=await process.wait())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    server = ExecServer(tmp_path / "exec.sock", run)
    server.start()
    yield tmp_path / "exec.sock"
    await server.close()


def request(*command: str, pod: str = "web") -> dict[str, object]:
    return {"namespace": "default", "pod": pod, "command": list(command)}


async def test_the_exit_code_and_output_are_the_commands(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ("sh", "-c", "echo out; echo err >&2; exit 7")
    code = await asyncio.to_thread(client.run, path, request(*command), stdin=False, tty=False)
    captured = capfd.readouterr()
    assert (code, captured.out, captured.err) == (7, "out\n", "err\n")


async def test_an_error_is_told_with_its_reason(path: Path) -> None:
    with pytest.raises(ApiError, match="not found") as refused:
        await asyncio.to_thread(client.run, path, request("true", pod="none"), stdin=False, tty=False)
    assert refused.value.reason == "NotFound"


async def test_the_command_ends_when_its_caller_goes_away(path: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.connect(str(path))
    content = b'{"namespace": "default", "pod": "web", "command": ["sh", "-c", "exec 3>%s; exec sleep 600"]}' % bytes(
        fifo
    )
    socket.send_fds(caller, [content], [0, 1, 2])
    reader = await asyncio.to_thread(fifo.open, "rb")
    caller.close()
    with reader:
        # Ends when the last process that writes to it does.
        assert await asyncio.wait_for(asyncio.to_thread(reader.read), 10) == b""


async def test_a_malformed_request_is_answered_and_the_next_one_served(path: Path) -> None:
    for data, files in ((b"nonsense", [0, 1, 2]), (b'{"namespace": "d", "pod": "p", "command": []}', [0])):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(path))
            socket.send_fds(caller, [data], files)
            assert b"BadRequest" in await asyncio.to_thread(caller.recv, 65536)
    assert await asyncio.to_thread(client.run, path, request("true"), stdin=False, tty=False) == 0


async def test_only_its_owner_can_open_the_socket(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_daemon_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ControlPlaneUnreachableError):
        client.run(tmp_path / "none.sock", request("true"), stdin=False, tty=False)
