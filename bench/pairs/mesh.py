"""Our sidecars on both sides: the image, its static configuration, and state over the control socket, as in a mesh."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import NamedTuple

from bench.app import PATH_REGEX
from bench.certs import TRUST_DOMAIN, Certificates, Svid
from bench.pairs import Pair
from bench.process import Process
from bench.topology import (
    APP_PORT,
    CLIENT_ADDRESS,
    SERVER_ADDRESSES,
    SERVICE_ADDRESS,
    SERVICE_PORT,
    Topology,
)
from nginx_mesh.compile.state import (
    Cluster,
    Destination,
    Endpoint,
    Grant,
    Identity,
    Inbound,
    Limit,
    PathRule,
    Settings,
    State,
    Update,
)
from nginx_mesh.node.control import Accepted, ControlSocket, UnreachableError

_START = "/usr/lib/nginx-mesh/sidecar"
_CONFIGURATION = "etc/nginx-mesh/nginx.conf"
_SOCKET = "nginx-mesh/control.sock"
_PATIENCE_SECONDS = 10.0
_CLUSTER = "bench/server:80"
_UNREACHED_RATE = 1_000_000_000
_UNREACHED_BURST = 1_000_000


class Features(NamedTuple):
    """What a request gets done to it. The pair is measured with everything; the breakdown takes things away."""

    limit: bool = True
    rules: bool = True
    least_time: bool = True
    metrics: bool = True


class MeshPair(Pair):
    """Two of our sidecars, one nginx worker each."""

    name = "mesh"
    authorises = True

    def __init__(self, root: Path, directory: Path, name: str = name, features: Features | None = None) -> None:
        super().__init__(root, directory)
        self.name = name
        self._features = features or Features()
        self.authorises = self._features.rules

    def start(self, topology: Topology, certificates: Certificates) -> None:
        """Start both sidecars and give them their state."""
        client, server = self._hops(topology)
        original = (self._root / _CONFIGURATION).read_text()
        configuration = reduced(original, self._features)
        for process in (client, server):
            process.make_directory("nginx-mesh")
            temporary = process.make_directory("tmp")
            process.write("nginx.conf", configuration)
            process.start(
                _START,
                binds={
                    temporary: "/tmp",  # noqa: S108
                    process.directory / "nginx.conf": f"/{_CONFIGURATION}",
                },
            )
        asyncio.run(push(client, client_state(certificates, self._features)))
        asyncio.run(push(server, server_state(certificates, self._features)))


def client_state(certificates: Certificates, features: Features) -> State:
    """The calling pod: one service with an endpoint per address of the server pod."""
    labels = {"dst_pod": "server-0", "dst_service": "server", "dst_namespace": "bench", "dst_deployment": "server"}
    endpoint = Endpoint(tls=True, spiffe_id=certificates.server.spiffe_id, labels=labels)
    return {
        **_common(certificates, certificates.client, "client", [CLIENT_ADDRESS]),
        f"destination/{SERVICE_ADDRESS}:{SERVICE_PORT}": Destination(protocol="http", cluster=_CLUSTER),
        f"cluster/{_CLUSTER}": Cluster(
            lb_method="least_time" if features.least_time else "round_robin",
            endpoints={f"{address}:{APP_PORT}": endpoint for address in SERVER_ADDRESSES},
        ),
    }


def server_state(certificates: Certificates, features: Features) -> State:
    """The called pod: one port, who may call what on it, and a limit that is never reached."""
    caller = [certificates.client.spiffe_id]
    rule = Grant(target="bench/target", sources=caller, matches=[PathRule(path_regex=PATH_REGEX)])
    limit = Limit(name="bench/limit", rate=_UNREACHED_RATE, burst=_UNREACHED_BURST, delay=-1)
    return {
        **_common(certificates, certificates.server, "server", list(SERVER_ADDRESSES)),
        f"inbound/{APP_PORT}": Inbound(
            protocols=["http"],
            grants=[rule] if features.rules else None,
            limits=[limit] if features.limit else [],
        ),
    }


def reduced(configuration: str, features: Features) -> str:
    """A sidecar's nginx.conf without what `features` leaves out. ValueError when there is nothing to take away."""
    if features.metrics:
        return configuration
    quiet, count = re.subn(r"^ *mesh_count on;\n", "", configuration, flags=re.MULTILINE)
    if not count:
        raise ValueError("the sidecar's nginx.conf has no mesh_count to take away")
    return quiet


async def push(process: Process, state: State) -> None:
    """Give a sidecar that is starting its first state and wait until it runs it.

    RuntimeError with the sidecar's reason when it refuses; ProcessDiedError when it ended.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    async with ControlSocket(process.directory / _SOCKET) as control:
        while True:
            process.check()
            try:
                answer = await control.put(Update(base=None, version=1, set_=state))
                break
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
    if not isinstance(answer, Accepted):
        raise RuntimeError(f"{process.directory.name}: state not accepted: {answer}")


def _common(certificates: Certificates, svid: Svid, name: str, addresses: list[str]) -> State:
    return {
        "settings": Settings(
            mtls_mode="strict",
            trust_domain=TRUST_DOMAIN,
            client_max_body_size=1024 * 1024,
            log_level="warn",
            log_format="default",
            addresses=addresses,
            labels={"pod": f"{name}-0", "namespace": "bench", "deployment": name},
        ),
        "identity": Identity(spiffe_id=svid.spiffe_id, svid=svid.certificate, key=svid.key, bundle=certificates.root),
    }
