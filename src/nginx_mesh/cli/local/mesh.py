"""A mesh on this machine as commands know it: where its daemon's files are, and how the daemon is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nginx_mesh.cli.control_plane import ControlPlane
from nginx_mesh.cli.errors import MeshError
from nginx_mesh.cli.unix_http import UnixHttpClient
from nginx_mesh.local.locks import is_locked
from nginx_mesh.local.paths import MeshPaths

if TYPE_CHECKING:
    from nginx_mesh.api.settings import MeshSettings


class LocalMesh:
    """A mesh on this machine, which may or may not exist."""

    def __init__(self, paths: MeshPaths) -> None:
        self.paths = paths

    @classmethod
    def named(cls, name: str) -> LocalMesh:
        """Return the mesh of that name. Raises ValueError for what cannot be a name."""
        return cls(MeshPaths(name))

    @property
    def name(self) -> str:
        """The name that users know it by."""
        return self.paths.name

    @property
    def api_socket(self) -> Path:
        """The unix socket at which the daemon serves its API."""
        return self.paths.run / "api.sock"

    @property
    def exec_socket(self) -> Path:
        """The unix socket at which the daemon takes commands to run in containers."""
        return self.paths.run / "exec.sock"

    @property
    def daemon_log(self) -> Path:
        """The log of the daemon."""
        return self.paths.logs / "daemon.log"

    @property
    def daemon_lock(self) -> Path:
        """The file that the daemon keeps locked as long as it lives."""
        return self.paths.run / "daemon.lock"

    @property
    def settings_file(self) -> Path:
        """The settings that the mesh was made with. The file exists as long as the mesh does."""
        return self.paths.state / "settings.json"

    def exists(self) -> bool:
        """Whether there is such a mesh, running or not."""
        return self.settings_file.exists()

    def is_running(self) -> bool:
        """Whether the mesh's daemon runs."""
        return is_locked(self.daemon_lock)

    def check_exists(self) -> None:
        """Raise MeshError unless there is such a mesh and the user is root."""
        require_root()
        if not self.exists():
            raise MeshError(f'there is no mesh named "{self.name}": start it with `nginx-meshctl local up`')

    def api(self, timeout: float | None = None) -> UnixHttpClient:
        """Return a client of the daemon's API, the Kubernetes objects included, that waits `timeout` seconds.

        Raises MeshError when no daemon runs.
        """
        self.check_exists()
        if not self.is_running():
            raise MeshError(
                f'mesh "{self.name}" has no daemon (its pods go on): start it again with `nginx-meshctl local up`'
            )
        return UnixHttpClient(self.api_socket, timeout)

    def connect(self, timeout: float | None = None) -> ControlPlane:
        """Return the control plane, which may be silent for `timeout` seconds. Raises MeshError when no daemon runs."""
        return ControlPlane(self.api(timeout))

    def why_silent(self, error: Exception) -> str:
        """Say what an error of `connect`, or of the control plane, means for the daemon and what to do."""
        if isinstance(error, MeshError):
            return "does not run (its pods go on): start it again with `nginx-meshctl local up`"
        return f"does not answer ({error}); its log is {self.daemon_log}"

    def settings(self) -> MeshSettings:
        """Return the settings that the mesh was made with, or given since where they need a restart of the daemon.

        Raises OSError and msgspec.DecodeError.
        """
        import msgspec

        from nginx_mesh.api.settings import MeshSettings

        return msgspec.json.decode(self.settings_file.read_bytes(), type=MeshSettings)

    def identity_config(self) -> bytes:
        """Return the mesh's own configuration of identity as JSON, b"" when it has none."""
        return self.paths.identity_file.read_bytes() if self.paths.identity_file.exists() else b""


def parse_mesh(name: str) -> LocalMesh:
    """Return the mesh of that name. Raises click.BadParameter for what cannot be a name."""
    try:
        return LocalMesh.named(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def require_root() -> None:
    """Raise MeshError for who is not root."""
    if os.geteuid() != 0:
        raise MeshError("local meshes need root, as pods are network namespaces: run this with sudo")


def all_meshes() -> list[LocalMesh]:
    """Return every mesh of this machine, by name."""
    parent = MeshPaths("local").state.parent
    names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
    return [mesh for mesh in map(_mesh_or_none, names) if mesh is not None and mesh.exists()]


def _mesh_or_none(name: str) -> LocalMesh | None:
    try:
        return LocalMesh.named(name)
    except ValueError:
        return None
