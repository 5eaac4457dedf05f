"""The process of a local mesh's dashboard: starting it, finding it, and ending it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from nginx_mesh.cli.errors import MeshError
from nginx_mesh.local.locks import is_locked
from nginx_mesh.local.pidlock import DaemonError, end_holder

from .mesh import LocalMesh

_START_SECONDS = 15.0
_STOP_SECONDS = 10.0


class LocalDashboard:
    """The dashboard of a local mesh. Every method raises MeshError."""

    def __init__(self, mesh: LocalMesh) -> None:
        self._mesh = mesh
        self._paths = mesh.paths

    def check_startable(self) -> None:
        """Raise MeshError unless the mesh exists and has no dashboard yet."""
        self._mesh.check_exists()
        if is_locked(self._paths.dashboard_lock):
            url = self._paths.dashboard_url
            where = url.read_text() if url.exists() else "it is just starting or ending"
            raise MeshError(f'mesh "{self._mesh.name}" has a dashboard already: {where}')

    def serve(self, address: str, port: int | None, started: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT; `started` is called with the URL. Raises OSError when it cannot listen."""
        from nginx_mesh.local.dashboard import run

        try:
            run(self._paths, address, port, started)
        except DaemonError as error:
            raise MeshError(str(error)) from None

    def start(self, address: str, port: int | None) -> str:
        """Serve in a process in the background, and return the URL."""
        command = [sys.executable, "-m", "nginx_mesh.local.dashboard"]
        command += ["--mesh", self._mesh.name, "--address", address]
        if port is not None:
            command += ["--port", str(port)]
        log = self._paths.logs / "dashboard.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        started = False
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if self._paths.dashboard_url.exists():
                    started = True
                    return self._paths.dashboard_url.read_text()
                time.sleep(0.05)
        finally:
            if not started:
                process.kill()
                process.wait()
        raise MeshError(f"the dashboard does not start: {log.read_text(errors='replace').strip() or 'no answer'}")

    def stop(self) -> None:
        """End the process of the dashboard."""
        if not is_locked(self._paths.dashboard_lock):
            raise MeshError(f'mesh "{self._mesh.name}" has no dashboard')
        try:
            end_holder(self._paths.dashboard_lock, _STOP_SECONDS)
        except DaemonError as error:
            raise MeshError(str(error)) from None
