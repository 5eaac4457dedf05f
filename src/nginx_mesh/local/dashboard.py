"""The process of a local mesh's dashboard: `python -m nginx_mesh.local.dashboard --mesh NAME --address ADDRESS`.

The process holds a lock while it runs. The lock ensures that a mesh has at most one dashboard, and `local down` ends
the process that holds it. SIGTERM ends the process as well.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable

from nginx_mesh.dashboard.server import DEFAULT_PORT, DashboardServer

from .files import write_file
from .paths import MeshPaths
from .pidlock import DaemonError, held


def run(paths: MeshPaths, address: str, port: int | None, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Without a `port` this is DEFAULT_PORT, or any free one when that is taken.

    `started` is called with the URL. Raises DaemonError when the mesh has a dashboard already, OSError when the server
    cannot listen.
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
        write_file(paths.dashboard_url, url.encode())
        started(url)
        await stopped.wait()
    finally:
        await server.close()


def main() -> None:
    """Entry point of a dashboard that runs in the background."""
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
