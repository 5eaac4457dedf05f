"""One running container: started under a supervisor, found again by the next daemon, signalled, watched.

The supervisor is a shell, process 1 of the container's pid namespace. When the command exits, the shell writes the exit
code to the file `status` and exits too, and the kernel ends all other processes of the command. The shell holds a lock
on `status` while it runs. So the files show the state of a container, with or without a daemon:

| `status` | meaning |
|---|---|
| absent | never started |
| locked | running; `processes.json` has the pids |
| not locked, has a line | the command's exit code, 128 + N when it died of signal N |
| not locked, blank | the supervisor was killed before it could write the exit code |
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from nginx_mesh.local import linux
from nginx_mesh.local.files import write_file
from nginx_mesh.local.locks import is_locked, lock
from nginx_mesh.local.net import netns

from .launchspec import LaunchSpec

# $0 is the container's directory, by which cleanup.py finds the supervisor. Overwriting blanks works on a full disk.
_SUPERVISOR = '"$@" </dev/null 2>&1; echo "$?" >&0'
_BLANK_STATUS = b"    "
_LAUNCHER = Path(__file__).with_name("launch.py")
_KILLED = 128 + signal.SIGKILL
_RECORD_WAIT = 5.0
_RECORD_POLL = 0.01


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a start, in `attempt.json`, with which the next daemon continues.

    `started_at` is a time of CLOCK_BOOTTIME, which nobody can set. `delay` is the wait before this start, None before
    the first. Both are in seconds.
    """

    restarts: int
    started_at: float
    delay: float | None


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a container ended. `failure` says why it could not be started, when that is so.

    `ended` is the time in seconds since the epoch, None when the supervisor was killed before it wrote the exit code.
    """

    code: int
    failure: str = ""
    ended: float | None = None


class _Processes(msgspec.Struct, frozen=True, kw_only=True):
    supervisor: int
    main: int


class ContainerDir:
    """The files of one container."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._status = path / "status"
        self._attempt = path / "attempt.json"
        self._processes = path / "processes.json"
        self._failure = path / "failure"
        self.spec = path / "spec.json"

    def prepare(self, spec: LaunchSpec, attempt: Attempt) -> int:
        """Write the record of a start; returns the locked status file. Raises BlockingIOError when it runs already."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.open(self._status, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock(status)
            for stale in (self._processes, self._failure):
                stale.unlink(missing_ok=True)
            os.ftruncate(status, 0)
            os.pwrite(status, _BLANK_STATUS, 0)
            write_file(self._attempt, msgspec.json.encode(attempt))
            write_file(self.spec, msgspec.json.encode(spec))
        except BaseException:
            os.close(status)
            raise
        return status

    def running(self) -> bool:
        """Whether the supervisor runs."""
        return is_locked(self._status)

    def exit(self) -> Exit | None:
        """How the last run ended; None when there was none. The container must not be running."""
        try:
            words = self._status.read_text().split()
        except FileNotFoundError:
            return None
        failure = self._failure.read_text() if self._failure.exists() else ""
        if not words:
            return Exit(code=_KILLED, failure=failure)
        # Nothing is written to the file after the exit code.
        return Exit(code=int(words[0]), failure=failure, ended=self._status.stat().st_mtime)

    def last_start(self) -> float | None:
        """The time of the last start, in seconds since the epoch; None when there was none."""
        try:
            return self._attempt.stat().st_mtime
        except FileNotFoundError:
            return None

    def attempt(self) -> Attempt | None:
        """The record of the last start; None when there was none or it is damaged."""
        try:
            return msgspec.json.decode(self._attempt.read_bytes(), type=Attempt)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def main_pid(self) -> int | None:
        """The pid of the command's process on the host; None when the container does not run."""
        processes = self.processes() if self.running() else None
        return processes.main if processes else None

    def processes(self) -> _Processes | None:
        """The pids; None before the launcher has written them."""
        try:
            return msgspec.json.decode(self._processes.read_bytes(), type=_Processes)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


class RunningContainer:
    """A container whose supervisor runs, or ran a moment ago. It has a descriptor, so it must be closed."""

    def __init__(self, directory: ContainerDir, supervisor: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self._directory = directory
        self._supervisor = supervisor
        self._popen = popen
        # Whether the command itself was run; False when setting the container up failed.
        self.started = True
        self._pidfd = os.pidfd_open(supervisor)
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._on_end)

    @classmethod
    async def start(
        cls, directory: ContainerDir, spec: LaunchSpec, attempt: Attempt, namespace: str, log: Path
    ) -> RunningContainer:
        """Start the command in the network namespace. Returns just before the command runs, or when that has failed.

        Raises OSError when not even the supervisor starts, BlockingIOError when the container runs already.
        """
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        spawning = asyncio.ensure_future(
            netns.run_async(lambda: _spawn(directory, spec, attempt, log, ready_write), namespace)
        )
        try:
            popen = await _finish(spawning)
            os.close(ready_write)
            ready_write = -1
            running = cls(directory, popen.pid, popen)
            try:
                # The supervisor holds the other end of the pipe too, so this ends when the container does.
                await readable(ready_read)
            except asyncio.CancelledError:
                running.close()
                raise
            running.started = bool(os.read(ready_read, 1))
            return running
        finally:
            for fd in (ready_read, ready_write):
                if fd >= 0:
                    os.close(fd)

    @classmethod
    async def adopt(cls, directory: ContainerDir) -> RunningContainer | None:
        """The container that another daemon started, or None when it does not run."""
        deadline = time.monotonic() + _RECORD_WAIT
        while directory.running():
            processes = directory.processes()
            if processes is not None:
                with contextlib.suppress(ProcessLookupError):
                    running = cls(directory, processes.supervisor)
                    if directory.running():
                        return running
                    running.close()
                return None
            if time.monotonic() > deadline:
                raise TimeoutError(f"{directory.path}: the launcher does not write the pids of the container")
            await asyncio.sleep(_RECORD_POLL)
        return None

    async def wait(self) -> Exit:
        """Wait until everything in the container has ended."""
        await asyncio.shield(self._ended)
        return self._directory.exit() or Exit(code=_KILLED)

    def terminate(self, number: signal.Signals) -> None:
        """Send a signal to the command and its process group. The supervisor, being process 1, is immune to it."""
        if self._directory.running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._supervisor, number)

    def signal_main(self, number: signal.Signals) -> None:
        """Send a signal to the command's main process only."""
        pid = self._directory.main_pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End everything in the container at once."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Close the descriptor. The container continues to run."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            self._ended.cancel()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if self._popen is not None:
            self._popen.wait()
        self._ended.set_result(None)


def _spawn(
    directory: ContainerDir, spec: LaunchSpec, attempt: Attempt, log: Path, ready_fd: int
) -> subprocess.Popen[bytes]:
    """Start the supervisor. Must run in a thread of its own, in the pod's network namespace."""
    status = directory.prepare(spec, attempt)
    try:
        shutil.rmtree(spec.disk, ignore_errors=True)
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # The command may then open /dev/stdout, which is this file.
            os.fchown(log_fd, spec.uid, spec.gid)
            linux.unshare(linux.CLONE_NEWPID)
            launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), "run", str(directory.spec), str(ready_fd)]
            return subprocess.Popen(
                ["/bin/sh", "-c", _SUPERVISOR, str(directory.path), *launcher],
                stdin=status,
                stdout=log_fd,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                pass_fds=(ready_fd,),
                start_new_session=True,
            )
        finally:
            os.close(log_fd)
    finally:
        os.close(status)


async def run_in_container(
    directory: ContainerDir, main_pid: int, argv: list[str], stdin: int, stdout: int, stderr: int, tty: bool = False
) -> int:
    """Run `argv` in the container of a main process, with the environment and rights of that. Returns the exit code.

    With `tty`, `stdin` must be a terminal; it becomes the controlling one. Cancelling ends the process.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(_LAUNCHER), "exec", str(directory.spec), str(main_pid)),
        *("tty" if tty else "", *argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd="/",
        env={},
        start_new_session=True,
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _finish(task: asyncio.Future[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Wait for the result of a thread even when cancelled: it must not start a container after the caller has ended."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


async def readable(fd: int) -> None:
    """Wait until a descriptor has something to read."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, ready.set_result, None)
    ready.add_done_callback(lambda _: loop.remove_reader(fd))
    try:
        await ready
    finally:
        loop.remove_reader(fd)
