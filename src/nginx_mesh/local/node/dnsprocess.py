"""The process of the DNS server: started by the first daemon, found by later ones, restarted when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time

from nginx_mesh.local.locks import is_locked
from nginx_mesh.local.net.network import ipv6_available
from nginx_mesh.local.net.networks import PodNetworks
from nginx_mesh.local.paths import MeshPaths

from . import dns
from .container import readable

log = logging.getLogger(__name__)

_START_SECONDS = 15.0
_POLL_SECONDS = 0.02
_RESTART_SECONDS = 1.0


class DnsProcess:
    """The DNS server of one mesh. It continues to run when the daemon ends."""

    def __init__(self, paths: MeshPaths, networks: PodNetworks) -> None:
        self._addresses = networks.nodes
        self._directory = paths.dns
        self._log = paths.logs / "dns.log"
        self._lock = paths.dns / dns.LOCK_FILE
        self._popen: subprocess.Popen[bytes] | None = None

    async def ensure(self) -> None:
        """Start the server unless it runs, and wait until it answers. Raises OSError when it does not start."""
        if self._pid() is not None:
            return
        self._directory.mkdir(mode=0o755, exist_ok=True)
        addresses = [str(address) for address in self._addresses if address.version == 4 or ipv6_available()]
        with self._log.open("ab") as log_file:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-m", "nginx_mesh.local.node.dns", str(self._directory), *addresses],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                cwd="/",
                env={},
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while self._pid() is None:
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"the DNS server does not start; see {self._log}")
            await asyncio.sleep(_POLL_SECONDS)

    async def keep(self) -> None:
        """Restart the server whenever it ends. Runs until cancelled."""
        while True:
            try:
                await self.ensure()
                await self._wait_for_end()
                log.warning("the DNS server ended; starting it again")
            except OSError as error:
                log.warning("%s", error)
            await asyncio.sleep(_RESTART_SECONDS)

    async def _wait_for_end(self) -> None:
        pid = self._pid()
        if pid is None:
            return
        fd = os.pidfd_open(pid)
        try:
            # The pid that was read may be that of another process by now. It is the server's if the lock is still held.
            if is_locked(self._lock):
                await readable(fd)
        finally:
            os.close(fd)
        if self._popen is not None:
            self._popen.poll()

    def _pid(self) -> int | None:
        """The server's pid; None when there is no server, or it does not have its sockets yet."""
        if not is_locked(self._lock):
            return None
        text = self._lock.read_text()
        return int(text) if text.endswith("\n") else None
