"""A mesh on this machine as operators' commands use it: the `MeshInstallation` of a local mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nginx_mesh.cli.control_plane import ControlPlane

from .mesh import parse_mesh, require_root

if TYPE_CHECKING:
    from nginx_mesh.support.archive import Archive

    from .dashboard import LocalDashboard


class LocalInstallation:
    """The mesh of this name on this machine. Raises click.BadParameter for what cannot be a name."""

    def __init__(self, name: str) -> None:
        self._mesh = parse_mesh(name)

    @property
    def name(self) -> str:
        """The name that users know it by."""
        return self._mesh.name

    def check_exists(self) -> None:
        """Raise MeshError unless there is such a mesh and the user is root."""
        self._mesh.check_exists()

    def connect(self, timeout: float | None = None) -> ControlPlane:
        """Return the control plane, which may be silent for `timeout` seconds. Raises MeshError when no daemon runs."""
        return self._mesh.connect(timeout)

    def why_silent(self, error: Exception) -> str:
        """Say what an error of `connect`, or of the control plane, means for the daemon and what to do."""
        return self._mesh.why_silent(error)

    def collect_support_facts(self, archive: Archive, show: Callable[[str], None], *, sidecar_logs: bool) -> None:
        """Put all that is known of the mesh into a support package; `show` is told what is being collected."""
        from .support_facts import Collector

        Collector(self._mesh, archive, show).collect(sidecar_logs=sidecar_logs)

    def dashboard(self) -> LocalDashboard:
        """Return the mesh's dashboard. Raises MeshError for who is not root."""
        from .dashboard import LocalDashboard

        require_root()
        return LocalDashboard(self._mesh)
