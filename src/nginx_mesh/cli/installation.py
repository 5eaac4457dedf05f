"""How a command finds the mesh that it is about. This is the only place that decides it.

Today every mesh is a local one, named by `--mesh`. A mesh in a cluster, found by the global flags of `Connection`, is
to be another implementation of `MeshInstallation`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from nginx_mesh.support.archive import Archive

    from .control_plane import ControlPlane


@dataclass(frozen=True, slots=True)
class Connection:
    """The global flags: how commands reach a cluster. `timeout` is in seconds."""

    kubeconfig: Path
    namespace: str
    timeout: float


class Dashboard(Protocol):
    """The dashboard of a mesh, of which there is at most one. Every method raises MeshError."""

    def check_startable(self) -> None:
        """Raise MeshError unless the mesh exists and has no dashboard yet."""

    def serve(self, address: str, port: int | None, started: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT; without a port at the usual one, or any when that is taken.

        `started` is called with the URL. Raises OSError too, when it cannot listen.
        """

    def start(self, address: str, port: int | None) -> str:
        """Serve in the background, and return the URL."""

    def stop(self) -> None:
        """End the dashboard."""


class MeshInstallation(Protocol):
    """A mesh, wherever its control plane runs. Every method raises MeshError."""

    @property
    def name(self) -> str:
        """The name that users know it by."""

    def check_exists(self) -> None:
        """Raise MeshError unless there is such a mesh, running or not, and the user may ask it."""

    def connect(self, timeout: float | None = None) -> ControlPlane:
        """Return its control plane, which may be silent for `timeout` seconds; None means for ever."""

    def why_silent(self, error: Exception) -> str:
        """Say what an error of `connect`, or of the control plane, means for the control plane and what to do."""

    def collect_support_facts(self, archive: Archive, show: Callable[[str], None], *, sidecar_logs: bool) -> None:
        """Put all that is known of the mesh into a support package; `show` is told what is being collected."""

    def dashboard(self) -> Dashboard:
        """Return its dashboard."""


def find_installation(name: str) -> MeshInstallation:
    """Return the mesh that `--mesh NAME` means. Raises click.BadParameter for what cannot be a name."""
    from .local.installation import LocalInstallation

    return LocalInstallation(name)


mesh_option = click.option(
    "--mesh", type=find_installation, default="local", show_default=True, metavar="NAME", help="Which local mesh."
)
"""Gives a command the mesh that it is about, as `mesh: MeshInstallation`."""
