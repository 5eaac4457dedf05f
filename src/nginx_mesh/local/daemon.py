"""The process behind a local mesh: `python -m nginx_mesh.local.daemon --name NAME [--image DIRECTORY | --destroy]`.

It lives in the mesh's node namespace. SIGTERM ends it alone: pods and sidecars go on, and the next daemon takes them
up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from nginx_mesh.api.settings import MeshSettings

from .exec_server import ExecServer
from .kubelet import Kubelet
from .netns import enter_node
from .paths import MeshPaths
from .runtime import Runtime
from .server import ApiServer

log = logging.getLogger(__name__)

_STOP_SECONDS = 15.0


class DaemonError(Exception):
    """The daemon cannot do its work; the message says why."""


@contextlib.contextmanager
def only_daemon(paths: MeshPaths) -> Iterator[None]:
    """Hold the lock that one process per mesh can have; our pid is in it. Raises DaemonError."""
    path = paths.run / "daemon.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as lock:  # noqa: PTH123
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DaemonError(f'mesh "{paths.name}" has a daemon already') from None
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def stop_daemon(paths: MeshPaths) -> None:
    """End the mesh's daemon if there is one, and wait for it. Raises DaemonError when it will not end."""
    deadline = time.monotonic() + _STOP_SECONDS
    asked = False
    while time.monotonic() < deadline:
        try:
            with (paths.run / "daemon.lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return
        except BlockingIOError:
            if not asked:
                os.kill(int((paths.run / "daemon.lock").read_text()), signal.SIGTERM)
                asked = True
            time.sleep(0.05)
        else:
            return
    raise DaemonError(f'the daemon of mesh "{paths.name}" does not end')


async def serve(paths: MeshPaths, image: Path | None) -> None:
    """Run the mesh until SIGTERM or SIGINT."""
    settings = msgspec.json.decode((paths.state / "settings.json").read_bytes(), type=MeshSettings)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    runtime = Runtime(paths, settings, image)
    await runtime.start()
    api = ApiServer(runtime, paths.run / "api.sock")
    commands = ExecServer(paths.run / "exec.sock", runtime.exec)
    commands.start()
    await api.start()
    log.info("serving mesh %s", paths.name)
    await stopped.wait()
    await api.close()
    await commands.close()
    await runtime.close()
    log.info("stopped; the pods go on")


async def destroy(paths: MeshPaths) -> None:
    """End every pod, and take away all that the mesh has."""
    kubelet = Kubelet(paths, images={}, lookup=lambda _: None, on_status=lambda _key, _status: None)
    await kubelet.start()
    await kubelet.destroy()
    for directory in (paths.run, paths.state):
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="nginx-mesh-local")
    parser.add_argument("--name", required=True)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--destroy", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    paths = MeshPaths(arguments.name)
    paths.make()
    try:
        if arguments.destroy:
            stop_daemon(paths)
        with only_daemon(paths):
            enter_node(paths.name)
            asyncio.run(destroy(paths) if arguments.destroy else serve(paths, arguments.image))
    except DaemonError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
