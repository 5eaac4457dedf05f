"""The pairs under test: each is a client proxy and a server proxy behind one small interface."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

from bench.certs import Certificates
from bench.process import Process
from bench.topology import Topology


class Pair(ABC):
    """A client proxy and a server proxy, each one process tree in the root filesystem `root`.

    `directory` is where every start makes a new directory for them. `authorises` says whether the pair enforces access
    rules, so that a request outside them must be refused.
    """

    name: str
    authorises: bool

    def __init__(self, root: Path, directory: Path) -> None:
        self._root = root
        self._directory = directory
        self._processes: list[Process] = []

    @abstractmethod
    def start(self, topology: Topology, certificates: Certificates) -> None:
        """Start both proxies. They are up once a request from the client pod to the service succeeds."""

    def stop(self) -> None:
        """End both; harmless when not started."""
        for process in self._processes:
            process.stop()
        self._processes = []

    def check(self) -> None:
        """Raise ProcessDiedError when a proxy ended, with its last output."""
        for process in self._processes:
            process.check()

    def pids(self) -> list[int]:
        """All processes of both proxies."""
        return [pid for process in self._processes for pid in process.pids()]

    def output_tail(self) -> str:
        """The end of what both proxies wrote to stderr."""
        return "\n".join(f"{process.directory.name}:\n{process.output_tail()}" for process in self._processes)

    def _hops(self, topology: Topology) -> tuple[Process, Process]:
        """New, not yet started, client and server side processes; `stop` ends them."""
        directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self._directory))
        cores = topology.cores.proxies
        client = Process(self._root, topology.client, directory / "client", cores)
        server = Process(self._root, topology.server, directory / "server", cores)
        self._processes = [client, server]
        return client, server
