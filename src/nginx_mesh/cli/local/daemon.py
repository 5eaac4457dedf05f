"""Making and ending a local mesh, and starting its daemon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.cli.errors import ControlPlaneUnreachableError, MeshError
from nginx_mesh.cli.unix_http import UnixHttpClient
from nginx_mesh.local.net.networks import DEFAULT, PodNetworks

from .mesh import LocalMesh

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_LOG_LINES = 15


def create(mesh: LocalMesh, settings: MeshSettings, networks: PodNetworks = DEFAULT, identity: bytes = b"") -> None:
    """Make the mesh's directories, and keep in them what it is made with.

    `identity` is its own configuration of identity as JSON, b"" for none.
    """
    from nginx_mesh.local.files import write_file
    from nginx_mesh.local.net.peering import save_pod_networks

    mesh.paths.make()
    save_pod_networks(mesh.paths, networks)
    if identity:
        write_file(mesh.paths.identity_file, identity)
    write_file(mesh.settings_file, msgspec.json.encode(settings))


def start(mesh: LocalMesh, image: Path | None) -> UnixHttpClient:
    """Start the daemon, detached from this process, and wait until it answers. Raises MeshError."""
    mesh.paths.make()
    command = [sys.executable, "-m", "nginx_mesh.local.daemon", "--name", mesh.name]
    if image is not None:
        command += ["--image", str(image)]
    with mesh.daemon_log.open("ab") as log:
        log_start = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    client = UnixHttpClient(mesh.api_socket)
    deadline = time.monotonic() + _START_SECONDS
    answered = False
    try:
        while not answered and process.poll() is None and time.monotonic() < deadline:
            try:
                client.get("/healthz")
                answered = True
            except ControlPlaneUnreachableError:
                time.sleep(0.05)
    finally:
        # After Ctrl-C, for example, the daemon may not hold its lock yet, so that nobody would find it to end it.
        if not answered:
            process.kill()
            process.wait()
    if answered:
        return client
    lines = mesh.daemon_log.read_bytes()[log_start:].decode(errors="replace").splitlines()[-_LOG_LINES:]
    raise MeshError("\n".join([f'the daemon of mesh "{mesh.name}" does not start ({mesh.daemon_log}):', *lines]))


def restart(mesh: LocalMesh, image: Path | None, settings: MeshSettings, identity: bytes = b"") -> UnixHttpClient:
    """Start the daemon of an existing mesh anew with other settings, ending the one that runs; pods go on meanwhile.

    Without `identity` the mesh's configuration of identity stays. When the daemon does not start, the mesh gets back
    the settings that it had, and MeshError is raised.
    """
    from nginx_mesh.local.files import write_file
    from nginx_mesh.local.pidlock import DaemonError, end_holder

    changed = {mesh.settings_file: msgspec.json.encode(settings)}
    if identity:
        changed[mesh.paths.identity_file] = identity
    before = {path: path.read_bytes() if path.exists() else None for path in changed}
    was_running = mesh.is_running()
    try:
        end_holder(mesh.daemon_lock, _STOP_SECONDS)
    except DaemonError as error:
        raise MeshError(str(error)) from None
    try:
        for path, content in changed.items():
            write_file(path, content)
        return start(mesh, image)
    except BaseException as error:
        for path, kept in before.items():
            if kept is None:
                path.unlink(missing_ok=True)
            else:
                write_file(path, kept)
        if was_running:
            start(mesh, image)
        if isinstance(error, MeshError):
            raise MeshError(f"{error}\nthe settings of the mesh are as they were") from None
        raise


def destroy(mesh: LocalMesh) -> None:
    """End the mesh: its dashboard, its daemon, its pods, and all that it kept. Raises MeshError."""
    from nginx_mesh.local.net import peering
    from nginx_mesh.local.node.cleanup import KillTimeoutError, destroy_node
    from nginx_mesh.local.pidlock import DaemonError, end_holder

    try:
        end_holder(mesh.paths.dashboard_lock, _STOP_SECONDS)
        end_holder(mesh.daemon_lock, _STOP_SECONDS)
        peering.disconnect_all(mesh.paths)
        destroy_node(mesh.paths)
    except (DaemonError, KillTimeoutError, OSError) as error:
        raise MeshError(f'mesh "{mesh.name}" cannot be ended: {error}') from None
