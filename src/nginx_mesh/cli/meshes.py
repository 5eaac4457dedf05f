"""The local meshes of this machine: which there are, and starting, finding and ending their daemons."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.local.locks import is_locked
from nginx_mesh.local.net.networks import DEFAULT, PodNetworks
from nginx_mesh.local.paths import MeshPaths

from .client import Client, UnreachableError

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_LOG_LINES = 15


class MeshError(Exception):
    """A mesh that cannot be found, started or ended; the message says why."""


def api_socket(paths: MeshPaths) -> Path:
    """Where the daemon's API listens."""
    return paths.run / "api.sock"


def exec_socket(paths: MeshPaths) -> Path:
    """Where the daemon takes commands for containers."""
    return paths.run / "exec.sock"


def daemon_log(paths: MeshPaths) -> Path:
    """What the daemon logs."""
    return paths.logs / "daemon.log"


def settings_file(paths: MeshPaths) -> Path:
    """The settings that the mesh was made with; it exists as long as the mesh does."""
    return paths.state / "settings.json"


def exists(paths: MeshPaths) -> bool:
    """Whether there is such a mesh, running or not."""
    return settings_file(paths).exists()


def daemon_lock(paths: MeshPaths) -> Path:
    """What the daemon holds as long as it lives."""
    return paths.run / "daemon.lock"


def is_running(paths: MeshPaths) -> bool:
    """Whether the mesh's daemon runs."""
    return is_locked(daemon_lock(paths))


def all_meshes() -> list[MeshPaths]:
    """Every mesh of this machine, by name."""
    parent = MeshPaths("local").state.parent
    names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
    return [paths for paths in map(_paths_or_none, names) if paths is not None and exists(paths)]


def connect(paths: MeshPaths, timeout: float | None = None) -> Client:
    """A client of the mesh's daemon, which may be silent for `timeout` seconds. Raises MeshError when there is none."""
    if not exists(paths):
        raise MeshError(f'there is no mesh named "{paths.name}": start it with `nginx-meshctl local up`')
    if not is_running(paths):
        raise MeshError(
            f'mesh "{paths.name}" has no daemon (its pods go on): start it again with `nginx-meshctl local up`'
        )
    return Client(api_socket(paths), timeout)


def create(paths: MeshPaths, settings: MeshSettings, networks: PodNetworks = DEFAULT, identity: bytes = b"") -> None:
    """Make the mesh's directories and write down what it is made with; `identity` is its configuration of identity."""
    from nginx_mesh.local.files import write_file
    from nginx_mesh.local.net.peering import save_pod_networks

    paths.make()
    save_pod_networks(paths, networks)
    if identity:
        write_file(paths.identity_file, identity)
    write_file(settings_file(paths), msgspec.json.encode(settings))


def made_with(paths: MeshPaths) -> MeshSettings:
    """The settings that an existing mesh was made with, or given since where they need a restart."""
    return msgspec.json.decode(settings_file(paths).read_bytes(), type=MeshSettings)


def identity_config(paths: MeshPaths) -> bytes:
    """The configuration of identity that a mesh has, b"" for none."""
    return paths.identity_file.read_bytes() if paths.identity_file.exists() else b""


def replace(paths: MeshPaths, image: Path | None, settings: MeshSettings, identity: bytes = b"") -> Client:
    """Have the daemon of an existing mesh begin anew, with these settings; pods go on meanwhile.

    Without `identity` its configuration of identity stays. Where the daemon does not start, the mesh gets back what it
    had, and MeshError is raised.
    """
    from nginx_mesh.local.files import write_file
    from nginx_mesh.local.pidlock import DaemonError, end_holder

    wanted = {settings_file(paths): msgspec.json.encode(settings)}
    if identity:
        wanted[paths.identity_file] = identity
    before = {path: path.read_bytes() if path.exists() else None for path in wanted}
    was_running = is_running(paths)
    try:
        end_holder(daemon_lock(paths), _STOP_SECONDS)
    except DaemonError as error:
        raise MeshError(str(error)) from None
    try:
        for path, content in wanted.items():
            write_file(path, content)
        return start_daemon(paths, image)
    except BaseException as error:
        for path, kept in before.items():
            if kept is None:
                path.unlink(missing_ok=True)
            else:
                write_file(path, kept)
        if was_running:
            start_daemon(paths, image)
        if isinstance(error, MeshError):
            raise MeshError(f"{error}\nthe settings of the mesh are as they were") from None
        raise


def encode_settings(settings: dict[str, Any]) -> Any:
    """Settings by name, ready to be sent as JSON."""
    return msgspec.to_builtins(settings)


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
    answered = False
    try:
        while not answered and process.poll() is None and time.monotonic() < deadline:
            try:
                client.get("/healthz")
                answered = True
            except UnreachableError:
                time.sleep(0.05)
    finally:
        if not answered:  # as after Ctrl-C: it may not hold its lock yet, so that nobody would find it to end it
            process.kill()
            process.wait()
    if answered:
        return client
    lines = daemon_log(paths).read_bytes()[start:].decode(errors="replace").splitlines()[-_LOG_LINES:]
    raise MeshError("\n".join([f'the daemon of mesh "{paths.name}" does not start ({daemon_log(paths)}):', *lines]))


def destroy(paths: MeshPaths) -> None:
    """End the mesh: its dashboard, its daemon, its pods and all it kept. Raises MeshError."""
    from nginx_mesh.local.net import peering as links
    from nginx_mesh.local.node.cleanup import KillTimeoutError, destroy_node
    from nginx_mesh.local.pidlock import DaemonError, end_holder

    try:
        end_holder(paths.dashboard_lock, _STOP_SECONDS)
        end_holder(daemon_lock(paths), _STOP_SECONDS)
        links.disconnect_all(paths)
        destroy_node(paths)
    except (DaemonError, KillTimeoutError, OSError) as error:
        raise MeshError(f'mesh "{paths.name}" cannot be ended: {error}') from None


def _paths_or_none(name: str) -> MeshPaths | None:
    try:
        return MeshPaths(name)
    except ValueError:
        return None
