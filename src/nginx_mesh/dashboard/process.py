"""The dashboard's process: `python -m nginx_mesh.dashboard.process --mesh NAME`. SIGTERM ends it.

It holds a lock as long as it lives, so that there is one for each mesh, and the end of the mesh ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable

from nginx_mesh.local.paths import MeshPaths
from nginx_mesh.local.pidlock import DaemonError, held

from .server import DEFAULT_PORT, DashboardServer


def run(paths: MeshPaths, address: str, port: int | None, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Without a port it is the usual one, or another when that is taken.

    `started` is called with the URL. Raises DaemonError when the mesh has a dashboard already, OSError when it cannot
    listen.
    """
    with held(paths.dashboard_lock):
        try:
            asyncio.run(_serve(paths, address, port, started))
        finally:
            paths.dashboard_url.unlink(missing_ok=True)


async def _serve(paths: MeshPaths, address: str, port: int | None, started: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = DashboardServer(paths.name, paths.run / "api.sock")
    try:
        url = await server.start(address, DEFAULT_PORT if port is None else port, any_port=port is None)
        whole = paths.dashboard_url.with_suffix(".new")
        whole.write_text(url)
        whole.replace(paths.dashboard_url)
        started(url)
        await stopped.wait()
    finally:
        await server.close()


def main() -> None:
    """Entry point of the process in the background."""
    parser = argparse.ArgumentParser(prog="nginx-mesh-dashboard")
    parser.add_argument("--mesh", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    try:
        run(MeshPaths(arguments.mesh), arguments.address, arguments.port, lambda _: None)
    except (DaemonError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
