"""The local meshes of this machine: which there are, and starting, finding and ending their daemons."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from nginx_mesh.local.paths import MeshPaths

from .client import Client, UnreachableError

_START_SECONDS = 30.0
_LOG_LINES = 15


class MeshError(Exception):
    """A mesh that cannot be found, started or ended; the message says why."""


def api_socket(paths: MeshPaths) -> Path:
    """Where the daemon's API listens."""
    return paths.run / "api.sock"


def daemon_log(paths: MeshPaths) -> Path:
    """What the daemon logs."""
    return paths.logs / "daemon.log"


def settings_file(paths: MeshPaths) -> Path:
    """The settings that the mesh was made with; it exists as long as the mesh does."""
    return paths.state / "settings.json"


def exists(paths: MeshPaths) -> bool:
    """Whether there is such a mesh, running or not."""
    return settings_file(paths).exists()


def is_running(paths: MeshPaths) -> bool:
    """Whether the mesh's daemon runs: it holds a lock as long as it lives."""
    try:
        with (paths.run / "daemon.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def all_meshes() -> list[MeshPaths]:
    """Every mesh of this machine, by name."""
    parent = MeshPaths("local").state.parent
    names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
    return [paths for paths in map(_paths_or_none, names) if paths is not None and exists(paths)]


def connect(paths: MeshPaths) -> Client:
    """A client of the mesh's daemon. Raises MeshError when there is none to talk to."""
    if not exists(paths):
        raise MeshError(f'there is no mesh named "{paths.name}": start it with `nginx-meshctl local up`')
    if not is_running(paths):
        raise MeshError(
            f'mesh "{paths.name}" has no daemon (its pods go on): start it again with `nginx-meshctl local up`'
        )
    return Client(api_socket(paths))


def create(paths: MeshPaths, settings: bytes) -> None:
    """Make the mesh's directories and write down the settings (JSON) it is made with."""
    paths.make()
    target = settings_file(paths)
    new = target.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(settings)
    new.replace(target)


def start_daemon(paths: MeshPaths, image: Path | None) -> Client:
    """Start the daemon, detached from this process, and wait until it answers. Raises MeshError."""
    paths.make()
    command = [sys.executable, "-m", "nginx_mesh.local.daemon", "--name", paths.name]
    if image is not None:
        command += ["--image", str(image)]
    with daemon_log(paths).open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    client = Client(api_socket(paths))
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            client.get("/healthz")
        except UnreachableError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return client
    lines = daemon_log(paths).read_bytes()[start:].decode(errors="replace").splitlines()[-_LOG_LINES:]
    raise MeshError("\n".join([f'the daemon of mesh "{paths.name}" does not start ({daemon_log(paths)}):', *lines]))


def destroy(paths: MeshPaths) -> None:
    """End the mesh: its daemon, its pods and all it kept. Raises MeshError."""
    done = subprocess.run(
        [sys.executable, "-m", "nginx_mesh.local.daemon", "--name", paths.name, "--destroy"],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise MeshError(f'mesh "{paths.name}" could not be ended: {done.stderr.strip()}')


def _paths_or_none(name: str) -> MeshPaths | None:
    try:
        return MeshPaths(name)
    except ValueError:
        return None
