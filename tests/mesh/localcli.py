"""A local mesh for tests, driven by its command line only: a name and a directory of its own, removed afterwards."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from nginx_mesh.cli.local.mesh import LocalMesh
from nginx_mesh.local.net import netns
from nginx_mesh.local.paths import MeshPaths
from tests.eventually import wait_until

from .repeating import Repeating

MESHCTL = [sys.executable, "-c", "from nginx_mesh.cli.main import main; main()"]
CTL = [*MESHCTL, "local"]


class LocalCli:
    """`with LocalCli() as mesh:` gives a mesh that is not up yet; `mesh.ok("up")` brings it up."""

    def __init__(self, root: Path | None = None) -> None:
        self.name = f"t{secrets.token_hex(4)}"
        self.root = root or Path(tempfile.mkdtemp(prefix="nsm-", dir="/tmp"))
        self.paths = MeshPaths(self.name, self.root)
        self.env = {**os.environ, "NGINX_MESH_ROOT": str(self.root)}

    def __enter__(self) -> LocalCli:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        result = self.run("down", "--all", name=None)
        shutil.rmtree(self.root, ignore_errors=True)
        assert result.returncode == 0, result.stderr
        assert not [name for name in netns.names() if name.startswith(self.paths.node_netns)]

    def beside(self) -> LocalCli:
        """Another mesh, which goes with this one."""
        return LocalCli(self.root)

    def run(
        self, command: str, *arguments: str, name: str | None = "", stdin: bytes = b"", user: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `nginx-meshctl local COMMAND --name NAME ARGUMENTS`; `name` "" is this mesh's, None leaves it out."""
        flags = [] if name is None else ["--name", name or self.name]
        result = subprocess.run(
            [*CTL, command, *flags, *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=120,
            user=user,
            cwd="/",
        )
        return subprocess.CompletedProcess(
            result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
        )

    def meshctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `nginx-meshctl ARGUMENTS`, which have to name the mesh if the command is about one."""
        return subprocess.run(
            [*MESHCTL, *arguments], env=self.env, capture_output=True, text=True, check=False, timeout=120, cwd="/"
        )

    def ok(self, command: str, *arguments: str, stdin: bytes = b"") -> str:
        """Run a command that must succeed; its output."""
        result = self.run(command, *arguments, stdin=stdin)
        assert result.returncode == 0, f"{command} {arguments}: {result.stdout}{result.stderr}{self.daemon_log()}"
        return result.stdout

    def apply(self, manifest: str) -> str:
        """Apply a manifest."""
        return self.ok("apply", "-f", "-", stdin=manifest.encode())

    def fails(self, command: str, *arguments: str, stdin: bytes = b"", code: int = 1) -> str:
        """Run a command that must fail with this exit code; what it says on stderr."""
        result = self.run(command, *arguments, stdin=stdin)
        assert result.returncode == code, f"{result.stdout}{result.stderr}"
        assert "Traceback" not in result.stderr
        return result.stderr

    def wait(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until a condition holds. The failure shows the pods and the daemon's log."""
        wait_until(condition, lambda: self.run("get", "pods", "-A").stdout + self.daemon_log(), seconds)

    def wait_ready(self) -> None:
        """Wait until every pod is ready."""
        self.ok("up")

    def pods(self, namespace: str = "shop") -> dict[str, Any]:
        """The pods of a namespace by name. No process is started for it."""
        items = LocalMesh(self.paths).api().get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return {pod["metadata"]["name"]: pod for pod in items}

    def pod(self, name: str, namespace: str = "shop") -> Any:
        """The pod of that name, or the first whose name begins like this."""
        found = self.pods(namespace)
        return next(found[known] for known in sorted(found) if known.startswith(name))

    def everything(self) -> str:
        """Names of all objects, to see that nothing changed."""
        kinds = "ns,sa,cm,secret,svc,deploy,sts,ds,job,po,tt,htr,tr,ts,rl,cb,meshconfig"
        return self.ok("get", kinds, "-A", "-o", "name")

    def daemon_pid(self) -> int:
        """The daemon's process."""
        return int((self.paths.run / "daemon.lock").read_text())

    def daemon_log(self) -> str:
        """What the daemon logged."""
        log = self.paths.logs / "daemon.log"
        return log.read_text() if log.exists() else ""


class Load(Repeating):
    """GET requests from the mesh's node, a connection each, until it is left. `failures` are the errors."""

    def __init__(self, mesh: LocalCli, host: str, interval: float = 0.005) -> None:
        super().__init__(interval)
        self.requests = 0
        self.failures: list[str] = []
        self._mesh = mesh
        self._host = host

    def _run(self) -> None:
        netns.enter(self._mesh.paths.node_netns)
        super()._run()

    def _once(self) -> None:
        self.requests += 1
        try:
            connection = http.client.HTTPConnection(self._host, timeout=5)
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            connection.close()
            if answer.status != 200:
                self.failures.append(f"{time.time()}: status {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{time.time()}: {error}")
