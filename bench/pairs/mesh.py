"""Our sidecars on both sides: the image, its static configuration, and state over the control socket, as in a mesh."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.app import PATH_REGEX
from bench.certs import Certificates
from bench.objects import breaker, pod, routes, service, split, states, target, unreached_limit
from bench.pairs import Pair
from bench.process import Process
from bench.reports import ReportSink
from bench.topology import (
    APP_PORT,
    CLIENT_ADDRESS,
    SERVER_ADDRESSES,
    SERVICE_ADDRESS,
    SERVICE_PORT,
    Topology,
)
from nginx_mesh.api.meta import Object
from nginx_mesh.node.control import ControlSocket
from nginx_mesh.protocol.control import Accepted, SidecarUnreachableError
from nginx_mesh.protocol.state import State, Update

_START = "/usr/lib/nginx-mesh/sidecar"
_CONFIGURATION = "etc/nginx-mesh/nginx.conf"
_SOCKET = "nginx-mesh/control.sock"
_PATIENCE_SECONDS = 10.0


class Features(NamedTuple):
    """What a request gets done to it. The pair is measured with these; the breakdown takes things away.

    `sampler_ratio` is the share of traces that are sampled, None for no tracing.
    """

    routing: bool = True
    limit: bool = True
    rules: bool = True
    least_time: bool = True
    metrics: bool = True
    sampler_ratio: float | None = None


_ALL = Features()


class MeshPair(Pair):
    """Two of our sidecars, one nginx worker each."""

    name = "mesh"
    authorises = True

    def __init__(
        self,
        root: Path,
        directory: Path,
        name: str = name,
        features: Features = _ALL,
        mesh: Iterable[Object] | None = None,
    ) -> None:
        """`mesh` has the pods `client` and `server-0`, whose sidecars these are; without, it is that of `features`."""
        super().__init__(root, directory)
        self.name = name
        self._features = features
        self._mesh = list(objects(features) if mesh is None else mesh)
        self.authorises = features.rules
        self._version = 0
        self._sinks: list[ReportSink] = []

    def start(self, topology: Topology, certificates: Certificates) -> None:
        """Start both sidecars and give them their state."""
        client, server = self._hops(topology)
        original = (self._root / _CONFIGURATION).read_text()
        configuration = reduced(original, self._features)
        for process in (client, server):
            shared = process.make_directory("nginx-mesh")
            if self._features.sampler_ratio is not None:
                self._sinks.append(ReportSink(shared / "report.sock"))
            temporary = process.make_directory("tmp")
            process.write("nginx.conf", configuration)
            process.start(
                _START,
                binds={
                    temporary: "/tmp",  # noqa: S108
                    process.directory / "nginx.conf": f"/{_CONFIGURATION}",
                },
            )
        self._certificates = certificates
        self.become(self._mesh)

    def stop(self) -> None:
        """End both, and who took their reports."""
        super().stop()
        for sink in self._sinks:
            sink.close()
        self._sinks = []

    def reports(self) -> int:
        """How many requests the two sidecars have reported."""
        return sum(sink.taken for sink in self._sinks)

    def metrics(self) -> list[str]:
        """What both sidecars expose to Prometheus."""
        return [asyncio.run(_metrics(process)) for process in self._processes]

    def become(self, mesh: Iterable[Object]) -> None:
        """Run in this mesh from now on."""
        self._version += 1
        wanted = states(mesh, self._certificates, sampler_ratio=self._features.sampler_ratio)
        for process, state in zip(self._processes, wanted, strict=True):
            asyncio.run(_push(process, state, self._version))


def objects(features: Features) -> Iterator[Object]:
    """The mesh: a client, and a Service of three pods, which are addresses of the one server pod.

    The policies concern every request, and none is in its way: the limit is not reached, and the circuit stays closed.
    """
    lb_method = "least_time" if features.least_time else "round_robin"
    yield pod("client", CLIENT_ADDRESS, "client", port=APP_PORT)
    for number, (address, version) in enumerate(zip(SERVER_ADDRESSES, ("old", "old", "new"), strict=True)):
        yield pod(f"server-{number}", address, "server", port=APP_PORT, labels={"version": version})
    yield service("server", SERVICE_ADDRESS, SERVICE_PORT, APP_PORT, {"app": "server"}, lb_method=lb_method)
    yield routes("paths", PATH_REGEX)
    if features.rules:
        yield target("target", "server", "client", "paths")
    if features.limit:
        yield unreached_limit("limit", "server")
    if features.routing:
        for version, address in (("old", "10.96.0.11"), ("new", "10.96.0.12")):
            yield service(version, address, SERVICE_PORT, APP_PORT, {"version": version}, lb_method=lb_method)
        yield split("split", "server", {"old": 2, "new": 1}, "paths")
        yield breaker("breaker", "server")


def reduced(configuration: str, features: Features) -> str:
    """A sidecar's nginx.conf without what `features` leaves out. ValueError when there is nothing to take away."""
    if features.metrics:
        return configuration
    quiet, count = re.subn(r"^ *mesh_count on;\n", "", configuration, flags=re.MULTILINE)
    if not count or "mesh_count" in quiet:
        raise ValueError("the sidecar's nginx.conf has no mesh_count to take away, or more than these")
    return quiet


async def _metrics(process: Process) -> str:
    async with ControlSocket(process.directory / _SOCKET) as control:
        return await control.metrics()


async def _push(process: Process, state: State, version: int) -> None:
    """Give a sidecar, which may still be starting, a whole state and wait until it runs it.

    RuntimeError with the sidecar's reason when it refuses; ProcessDiedError when it ended.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    async with ControlSocket(process.directory / _SOCKET) as control:
        while True:
            process.check()
            try:
                answer = await control.put(Update(base=None, version=version, set_=state))
                break
            except SidecarUnreachableError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
    if not isinstance(answer, Accepted):
        raise RuntimeError(f"{process.directory.name}: state not accepted: {answer}")
