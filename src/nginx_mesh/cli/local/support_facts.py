"""Collects for a support package what is known of a local mesh, from its daemon, its files and its network.

The package says what could not be collected; everything else is in it nevertheless.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

from nginx_mesh.api import kinds
from nginx_mesh.api.annotations import SIDECAR_CONTAINER
from nginx_mesh.api.fullconfig import full_config
from nginx_mesh.cli.control_plane import ControlPlane
from nginx_mesh.cli.errors import ApiError, ControlPlaneUnreachableError
from nginx_mesh.cli.support_facts import client_versions, collect_control_plane_facts
from nginx_mesh.cli.table import Resource
from nginx_mesh.cli.unix_http import UnixHttpClient
from nginx_mesh.local.logs import read_from, start_of_tail
from nginx_mesh.local.net import netns
from nginx_mesh.sidecar.image import CACHE
from nginx_mesh.support.archive import Archive
from nginx_mesh.support.redaction import Scrubber, secrets_of
from nginx_mesh.version import version

from .mesh import LocalMesh
from .references import object_path

# A daemon that does not answer must not keep the package from being made.
_SILENCE_SECONDS = 15.0
_COMMAND_SECONDS = 20.0
_STATUS_PORT = 8886
_MOST_LINES = 20_000
_MOST_BYTES = 8 << 20
_NETWORK = (
    ("addresses", ("ip", "-details", "address")),
    ("routes", ("ip", "route", "show", "table", "all")),
    ("ipv6-routes", ("ip", "-6", "route", "show", "table", "all")),
    ("sockets", ("ss", "--tcp", "--udp", "--all", "--numeric", "--processes")),
)
_KINDS = sorted(set(kinds.KINDS.values()), key=lambda kind: kind.KIND)
_README = """Support package of the mesh "{name}", {when}.

nginx-meshctl v{version}. Secrets, private keys and tokens were taken out: "<redacted>" stands in their place.

daemon/     what the mesh's daemon says of itself, its log and its metrics
identity/   who provides identities, CAs and bundles (public), who has which SVID
objects/    the mesh's objects
network/    addresses, routes and netfilter rules of the mesh's node
pods/       of each pod: logs, network, and of its sidecar the state, the status and the metrics
states/     what all sidecars of one mTLS mode have in common of their states

Not in it:
{missing}
"""


class Collector:
    """Puts what is known of a mesh into an archive; `show` is told what is being collected."""

    def __init__(self, mesh: LocalMesh, archive: Archive, show: Callable[[str], None]) -> None:
        self._mesh = mesh
        self._paths = mesh.paths
        self._archive = archive
        self._show = show
        self._api = UnixHttpClient(mesh.api_socket, _SILENCE_SECONDS)
        # The nft in the sidecar's image wrote the rules of the pods. An older one may not be able to read them.
        images = sorted(CACHE.glob("sidecar-*"), key=lambda image: image.stat().st_mtime)
        self._nft = ("chroot", str(images[-1]), "nft") if images else ("nft",)

    def collect(self, *, sidecar_logs: bool) -> None:
        """Collect everything; logs of sidecars only with `sidecar_logs`."""
        self._show("reading the mesh's objects")
        objects = self._objects()
        self._archive.scrubber = Scrubber(secrets_of(objects))
        for kind in sorted({resource["kind"] for resource in objects}):
            self._archive.document(f"objects/{kind}.json", [item for item in objects if item["kind"] == kind])
        self._archive.document("versions.json", client_versions())
        self._show("asking the daemon")
        self._ask_daemon()
        self._log("daemon/daemon.log", self._mesh.daemon_log)
        self._show("looking at the network")
        self._network("network", self._paths.node_netns)
        pods = [resource for resource in objects if resource["kind"] == "Pod"]
        for number, pod in enumerate(pods, 1):
            self._show(f"pod {number} of {len(pods)}: {pod['metadata']['namespace']}/{pod['metadata']['name']}")
            self._pod(pod, sidecar_logs=sidecar_logs)
        self._readme()

    def _objects(self) -> list[Resource]:
        """Return all objects, from the daemon or else from its database."""
        if self._mesh.is_running():
            try:
                return [item for kind in _KINDS for item in self._api.get(object_path(kind, ""))["items"]]
            except (ApiError, ControlPlaneUnreachableError) as error:
                self._archive.lacks("what the daemon says", error)
        try:
            database = f"file:{quote(str(self._paths.state / 'store.db'))}?mode=ro"
            with closing(sqlite3.connect(database, uri=True)) as store:
                return [json.loads(data) for (data,) in store.execute("SELECT data FROM objects ORDER BY kind")]
        except (sqlite3.Error, ValueError) as error:
            self._archive.lacks("objects", error)
            return []

    def _ask_daemon(self) -> None:
        if not self._mesh.is_running():
            self._archive.lacks(
                "what the daemon says (status, services, identities, states of sidecars)", "it does not run"
            )
        elif collect_control_plane_facts(ControlPlane(self._api), self._archive):
            return
        self._made_with()

    def _made_with(self) -> None:
        try:
            self._archive.document("daemon/made-with.json", full_config(self._mesh.settings()))
        except (OSError, msgspec.DecodeError) as error:
            self._archive.lacks("settings", error)

    def _pod(self, pod: Resource, *, sidecar_logs: bool) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        directory, uid = f"pods/{meta['namespace']}/{meta['name']}", meta["uid"]
        names = [container["name"] for container in [*spec.get("initContainers", []), *spec["containers"]]]
        for name in names:
            if name != SIDECAR_CONTAINER or sidecar_logs:
                self._log(f"{directory}/{name}.log", self._paths.pod_logs(uid) / f"{name}.log")
        self._network(directory, self._paths.pod_netns(uid))
        if SIDECAR_CONTAINER in names:
            try:
                sidecar = UnixHttpClient(self._paths.pod_socket_dir(uid) / "control.sock", _SILENCE_SECONDS)
                self._archive.text(f"{directory}/metrics.txt", b"".join(sidecar.stream("/v1/metrics")))
                self._archive.text(f"{directory}/status.json", _status(self._paths.pod_netns(uid)))
            except (ApiError, ControlPlaneUnreachableError, OSError, http.client.HTTPException) as error:
                self._archive.lacks(f"{directory}: status and metrics of the sidecar", error)

    def _log(self, name: str, path: Path) -> None:
        """Archive the end of a log, and of the file that it had been before it was rotated."""
        for each, label in ((path.with_name(f"{path.name}.1"), f"{name}.1"), (path, name)):
            if each.exists():
                self._archive.text(label, _tail(each))

    def _network(self, directory: str, namespace: str) -> None:
        for name, command in (*_NETWORK, ("nftables", (*self._nft, "list", "ruleset"))):
            try:
                printed = _run(("ip", "netns", "exec", namespace, *command))
            except (OSError, subprocess.SubprocessError) as error:
                self._archive.lacks(f"{directory}/{name}.txt", error)
                continue
            self._archive.text(f"{directory}/{name}.txt", printed)

    def _readme(self) -> None:
        missing = "\n".join(f"- {each}" for each in self._archive.missing) or "- nothing that should be"
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = _README.format(name=self._paths.name, when=when, version=version(), missing=missing)
        self._archive.text("README.txt", text)


def _status(namespace: str) -> bytes:
    """Return what a sidecar says of itself when it is asked inside its pod. Raises OSError and HTTPException."""

    def ask() -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", _STATUS_PORT, timeout=_SILENCE_SECONDS)
        with closing(connection):
            connection.request("GET", "/status")
            return connection.getresponse().read()

    return netns.run_in_thread(ask, namespace)


def _tail(path: Path) -> bytes:
    position, parts = max(start_of_tail(path, _MOST_LINES), path.stat().st_size - _MOST_BYTES), list[bytes]()
    while True:
        position, chunk = read_from(path, position)
        if not chunk:
            return b"".join(parts)
        parts.append(chunk)


def _run(command: tuple[str, ...]) -> str:
    """Return what a command prints. Raises OSError and SubprocessError."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=_COMMAND_SECONDS,
        check=True,
    )
    return done.stdout + done.stderr
