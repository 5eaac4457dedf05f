"""The process behind a local mesh: `python -m nginx_mesh.local.daemon --name NAME [--image DIRECTORY]`.

It runs in the mesh's node namespace. SIGTERM ends only the daemon: pods and sidecars continue to run, and the next
daemon continues with them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.identity.embedded import LocalIdentity, read_kept_config
from nginx_mesh.identity.server.server import START_ERRORS

from .api.store import StoreError
from .net.netns import enter_node, open_own
from .paths import MeshPaths
from .pidlock import DaemonError, held
from .runtime import Runtime

log = logging.getLogger(__name__)


async def serve(paths: MeshPaths, image: Path | None, machine: int) -> None:
    """Run the mesh until SIGTERM or SIGINT. `machine` is a descriptor of the machine's own network namespace."""
    settings = msgspec.json.decode((paths.state / "settings.json").read_bytes(), type=MeshSettings)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    config = read_kept_config(paths.identity_file)
    identity = await asyncio.to_thread(LocalIdentity, paths.name, paths.state / "identity", config, settings)
    runtime = Runtime(paths, settings, image, identity, machine)
    await runtime.start()
    log.info("serving mesh %s", paths.name)
    await stopped.wait()
    await runtime.close()
    log.info("stopped; the pods go on")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="nginx-mesh-local")
    parser.add_argument("--name", required=True)
    parser.add_argument("--image", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Private files are created with a mode of their own. All others are for pods, which run as other users.
    os.umask(0o022)
    paths = MeshPaths(arguments.name)
    paths.make()
    try:
        with held(paths.run / "daemon.lock"):
            machine = open_own()
            enter_node(paths.name)
            asyncio.run(serve(paths, arguments.image, machine))
    except (DaemonError, StoreError, *START_ERRORS) as error:
        log.critical("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
