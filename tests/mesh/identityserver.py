"""An identity server as a process of its own, and local meshes that take their identities from it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import yaml

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.cli.errors import ControlPlaneUnreachableError
from nginx_mesh.cli.local import daemon
from nginx_mesh.cli.local.mesh import LocalMesh
from nginx_mesh.cli.unix_http import UnixHttpClient
from nginx_mesh.identity.config import mesh_settings, read_config
from nginx_mesh.local.files import write_file
from tests.eventually import wait_until

from .localcli import LocalCli

_START_SECONDS = 20.0


class IdentityProcess:
    """`nginx-mesh-identity` with a directory of its own. `mtls` and `identity` are sections of its configuration."""

    def __init__(self, mtls: dict[str, Any], identity: dict[str, Any] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nsmid-", dir="/tmp"))
        self.socket = self.directory / "node.sock"
        self.bundle = self.directory / "bundle.pem"
        self._admin = self.directory / "admin.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.mtls = mtls
        self._identity = identity or {}
        self.write_config()

    def __enter__(self) -> IdentityProcess:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(signal.SIGKILL)
        shutil.rmtree(self.directory)

    def write_config(self) -> None:
        """Write the configuration file anew."""
        identity = {
            "dataDir": str(self.directory / "data"),
            "listen": f"unix:{self.socket}",
            "adminSocket": str(self._admin),
            "bundlePath": str(self.bundle),
            "serverID": "test",
            **self._identity,
        }
        (self.directory / "identity.yaml").write_text(yaml.safe_dump({"mtls": self.mtls, "identity": identity}))

    def start(self) -> None:
        """Start the process and wait until it serves."""
        command = [sys.executable, "-m", "nginx_mesh.identity", "--config", str(self.directory / "identity.yaml")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        wait_until(self._serves, self.log, _START_SECONDS)

    def _serves(self) -> bool:
        try:
            self.show()
        except ControlPlaneUnreachableError:
            assert self._process is not None and self._process.poll() is None, self.log()
            return False
        return True

    def end(self, number: signal.Signals) -> None:
        """End the process, by a signal."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """What it logged."""
        return (self.directory / "log").read_text()

    def show(self) -> dict[str, Any]:
        """What operators see."""
        shown: dict[str, Any] = self.admin("GET", "")
        return shown

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server as an operator."""
        return UnixHttpClient(self._admin).request(method, f"/identity{path}", body)

    def signing(self) -> str:
        """The key identifier of the CA that signs."""
        found: str = next(each["id"] for each in self.show()["authorities"] if each["state"] == "signing")
        return found

    def mesh(self) -> LocalCli:
        """A mesh that is not up yet, and takes its identities here."""
        mesh = LocalCli()
        token = self.directory / f"{mesh.name}.token"
        token.write_text(self.admin("POST", "/tokens", {"name": mesh.name, "registrar": True})["token"])
        agent = self.directory / f"{mesh.name}.yaml"
        server = {"address": f"unix:{self.socket}", "trustBundle": str(self.bundle), "joinTokenFile": str(token)}
        agent.write_text(yaml.safe_dump({"identity": {"provider": "server", "server": server}}))
        config = read_config(agent)
        daemon.create(LocalMesh(mesh.paths), mesh_settings(config, MeshSettings()))
        write_file(mesh.paths.state / "identity.json", msgspec.json.encode(config))
        return mesh


def identities(mesh: LocalCli) -> dict[str, dict[str, Any]]:
    """Who holds what in a mesh, by the pod's name."""
    found = LocalMesh(mesh.paths).api().get("/mesh/identities")
    return {each["pod"]: each for each in found}
