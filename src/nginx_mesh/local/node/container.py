"""One running container: started under a tiny supervisor, found again by the next daemon, signalled, watched.

The supervisor is a shell, process 1 of the container's pid namespace: when the command exits, the shell writes its exit
code to the file `status` and exits too, and the kernel ends whatever the command left running. The shell holds a lock
on `status` as long as it lives. So the files tell the whole truth, with or without a daemon:

| `status` | meaning |
|---|---|
| absent | never started |
| locked | running; `processes.json` has the pids |
| not locked, has a line | the command's exit code, 128 + N when it died of signal N |
| not locked, blank | killed before it could tell |
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

VENV_MOUNT = "/opt/nginx-mesh/venv"
DEFAULT_PATH = f"{VENV_MOUNT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# $0 is the container's directory: it tells whose supervisor this is. Overwriting blanks needs no room on a full disk.
_SUPERVISOR = '"$@" </dev/null 2>&1; echo "$?" >&0'
_BLANK_STATUS = b"    "
_LAUNCHER = Path(__file__).with_name("launch.py")
_KILLED = 128 + signal.SIGKILL
_RECORD_WAIT = 5.0
_RECORD_POLL = 0.01


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A directory or file of the host, `sub_path` of it, that the container sees at `target`."""

    source: str
    target: str
    sub_path: str = ""
    read_only: bool = False


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What launch.py needs to know. `image` is the read-only root, `disk` where the writable layer goes.

    `masks` are directories (with their modes) shown empty; `files` are written into the root; `host_root` says that
    the image is the host's own root. `open_files` is the soft RLIMIT_NOFILE.
    """

    argv: list[str]
    env: dict[str, str]
    working_dir: str
    hostname: str
    image: str
    host_root: bool
    disk: str
    masks: dict[str, int]
    files: dict[str, str]
    binds: list[Bind]
    read_only_root: bool
    uid: int
    gid: int
    groups: list[int]
    capabilities: list[str]
    open_files: int = 65536


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon must know to go on after another: kept in `attempt.json`.

    `started_at` is on the clock that no one sets (CLOCK_BOOTTIME), `delay` the wait before this start, None before the
    first; both in seconds.
    """

    restarts: int
    started_at: float
    delay: float | None


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a container ended. `failure` says why it could not be started, when that is so."""

    code: int
    failure: str = ""


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
        """Write the record of a start to come; returns the locked status file. Raises BlockingIOError when it runs."""
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
        """Whether the supervisor lives."""
        return is_locked(self._status)

    def exit(self) -> Exit | None:
        """How the last run ended; None when there was none. Only to be asked when it does not run."""
        try:
            words = self._status.read_text().split()
        except FileNotFoundError:
            return None
        failure = self._failure.read_text() if self._failure.exists() else ""
        return Exit(code=int(words[0]) if words else _KILLED, failure=failure)

    def attempt(self) -> Attempt | None:
        """The record of the last start; None when there was none or it is damaged."""
        try:
            return msgspec.json.decode(self._attempt.read_bytes(), type=Attempt)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def main_pid(self) -> int | None:
        """The command's process as the host sees it; None when the container does not run."""
        processes = self.processes() if self.running() else None
        return processes.main if processes else None

    def processes(self) -> _Processes | None:
        """The pids, once the launcher has written them."""
        try:
            return msgspec.json.decode(self._processes.read_bytes(), type=_Processes)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


class RunningContainer:
    """A container whose supervisor lives, or did a moment ago. `close` it when done with it: it has a descriptor."""

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
        """Start the command in the network namespace and return once it is about to run or has failed to.

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
                # The supervisor holds the pipe's other end too, so it ends at the latest when the container does.
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
                raise TimeoutError(f"{directory.path}: its launcher does not get on")
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
        """Let go of it; the container runs on."""
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
    """Start the supervisor; runs in a thread of its own, in the pod's network namespace."""
    status = directory.prepare(spec, attempt)
    try:
        shutil.rmtree(spec.disk, ignore_errors=True)
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # So that the command may open /dev/stdout, which is this file.
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
    """Run `argv` beside a container's main process, with its environment and rights. Returns the exit code.

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
    """Wait for a thread's work even when cancelled meanwhile: what it starts must not come after we gave up on it."""
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
