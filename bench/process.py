"""Processes of the benchmark: in a pod's network namespace, inside the sidecar's root filesystem, without privileges.

The root filesystem is shared and never written to: each process has a mount namespace of its own, where its directory
stands at /run. All proxies, Envoy included, run this way, so that they see the same libraries, files and limits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cores import pinned
from bench.topology import PROXY_UID, namespace_path

APP_UID = 65534
_STOP_SECONDS = 5.0

# $1: root filesystem; then pairs of what to bind and where; then "--" and the command.
_ENTER = """
set -e
root=$1
shift
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; shift 2; done
shift
exec chroot "$root" "$@"
"""


class ProcessDiedError(RuntimeError):
    """A process of the benchmark ended when it should run; the message ends with its last output."""


class Process:
    """One running program and its children.

    `directory` is its /run: a host directory made private to `uid`. Its stderr goes to `directory`/stderr. It runs on
    `cores` only.
    """

    def __init__(
        self, root: Path, namespace: str, directory: Path, cores: Sequence[int], *, uid: int = PROXY_UID
    ) -> None:
        self._root = root
        self._namespace = namespace
        self._cores = cores
        self._uid = uid
        self._popen: subprocess.Popen[bytes] | None = None
        self.directory = directory
        directory.mkdir(mode=0o700)
        os.chown(directory, uid, uid)

    def write(self, name: str, text: str, mode: int = 0o600) -> None:
        """Put a file into the process's /run, owned by its user and never readable more widely than `mode`."""
        path = self.directory / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w") as file:
            os.fchown(descriptor, self._uid, self._uid)
            file.write(text)

    def make_directory(self, name: str) -> Path:
        """Make a directory in the process's /run, private to its user; returns its path on the host."""
        path = self.directory / name
        path.mkdir(mode=0o700)
        os.chown(path, self._uid, self._uid)
        return path

    def start(self, *command: str, binds: Mapping[Path, str] | None = None) -> None:
        """Start `command` (paths as in the root filesystem). `binds` maps host paths to existing paths in the root.

        What it writes to stdout, where access logs go, is thrown away.
        """
        identity = [f"--reuid={self._uid}", f"--regid={self._uid}", "--clear-groups", "--pdeathsig=TERM"]
        argv = _enter(
            self._root,
            self._namespace,
            {self.directory: "/run", **(binds or {})},
            ("setpriv", *identity, "--no-new-privs", "--", *command),
        )
        with (self.directory / "stderr").open("wb") as stderr:
            self._popen = subprocess.Popen(
                pinned(self._cores, argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                env=_ENVIRONMENT,
            )

    def check(self) -> None:
        """Raise ProcessDiedError unless the process runs."""
        if self._popen is None or self._popen.poll() is not None:
            raise ProcessDiedError(f"{self.directory.name} ended; its last output:\n{self.output_tail()}")

    def output_tail(self, lines: int = 20) -> str:
        """The end of what the process wrote to stderr."""
        text = (self.directory / "stderr").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def pids(self) -> list[int]:
        """The process and its descendants, parents first."""
        self.check()
        assert self._popen is not None
        return descendants(self._popen.pid, parents())

    def stop(self) -> None:
        """End the process and its children; returns when they are gone."""
        if self._popen is None:
            return
        tree = descendants(self._popen.pid, parents())
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._popen.wait()
        self._popen = None


def run_privileged(root: Path, namespace: str, *command: str) -> None:
    """Run a program of the root filesystem to its end, as root, in a network namespace. RuntimeError when it fails."""
    done = subprocess.run(
        _enter(root, namespace, {}, command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=_ENVIRONMENT,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _enter(root: Path, namespace: str, binds: Mapping[Path, str], command: Sequence[str]) -> list[str]:
    mounts = {Path("/dev"): "/dev", Path("/proc"): "/proc", **binds}
    return [
        *("nsenter", f"--net={namespace_path(namespace)}", "unshare", "--mount", "sh", "-c", _ENTER, "sh"),
        str(root),
        *(str(part) for mount in mounts.items() for part in mount),
        *("--", *command),
    ]


def parents() -> dict[int, int]:
    """pid → parent's pid of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The command, in parentheses, may itself hold spaces and parentheses.
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def descendants(pid: int, parent_of: Mapping[int, int]) -> list[int]:
    """`pid` and everything below it, parents first."""
    tree = [pid]
    for member in tree:
        tree.extend(sorted(child for child, parent in parent_of.items() if parent == member))
    return tree


_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
