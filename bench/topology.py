"""Two network namespaces joined by a veth pair: a client pod and a server pod.

Every pair of proxies gets its own topology, so all see the same addresses, the same redirection and the same kernel
paths, and none sees another's traffic. The names carry the process id: two runs do not collide.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pyroute2 import netns

from bench.cores import Cores

# Where the sidecar's redirection sends what leaves a pod and what comes to it, and whom it leaves alone.
OUTGOING_PORT = 8900
INCOMING_PORT = 8901
PROXY_UID = 2102

CLIENT_ADDRESS = "10.201.0.1"
# Several addresses of the one server pod, so that balancing has something to choose from.
SERVER_ADDRESSES = ("10.201.0.2", "10.201.0.3", "10.201.0.4")
# From the server pod itself, where the application is reached past the redirection.
LOCAL_ADDRESS = "127.0.0.1"
APP_PORT = 8080
SERVICE_ADDRESS = "10.96.0.10"
SERVICE_PORT = 80

_DEVICE = "eth0"

T = TypeVar("T")


class Topology:
    """A client pod and a server pod; a context manager that removes both namespaces, whatever happened inside.

    `cores` says where what runs in them is to run.
    """

    def __init__(self, name: str, cores: Cores) -> None:
        self.cores = cores
        self.client = f"nmb-{os.getpid()}-{name}-c"
        self.server = f"nmb-{os.getpid()}-{name}-s"

    def __enter__(self) -> Topology:
        try:
            self._create()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _create(self) -> None:
        for namespace in (self.client, self.server):
            _run("ip", "netns", "add", namespace)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        _run("ip", "-n", self.client, "link", "add", _DEVICE, "type", "veth", "peer", _DEVICE, "netns", self.server)
        addresses = [(self.client, CLIENT_ADDRESS), *((self.server, address) for address in SERVER_ADDRESSES)]
        for namespace, address in addresses:
            _run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", _DEVICE)
        for namespace in (self.client, self.server):
            _run("ip", "-n", namespace, "link", "set", _DEVICE, "up")
        _run("ip", "-n", self.client, "route", "add", "default", "via", SERVER_ADDRESSES[0])
        _run("ip", "-n", self.server, "route", "add", "default", "via", CLIENT_ADDRESS)

    def _remove(self) -> None:
        for namespace in (self.client, self.server):
            if namespace_path(namespace).exists():
                _run("ip", "netns", "delete", namespace)


def namespace_path(name: str) -> Path:
    """The file by which the network namespace `name` is entered."""
    return Path("/run/netns", name)


def inside(namespace: str, action: Callable[[], T]) -> T:
    """Call `action` in a network namespace, from a thread of its own: the rest of the process stays where it is."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            netns.setns(namespace)
            result.append(action())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
