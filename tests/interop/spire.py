"""SPIRE itself, a server and an agent on this machine, where its programs are in PATH."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.agent.spire.entries import Selector
from nginx_mesh.identity.common.bundle import TrustBundle, encode

TRUST_DOMAIN = "spire.test"

_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{directory}/server.sock"
  trust_domain = "{trust_domain}"
  data_dir = "{directory}/server"
  log_level = "INFO"
  ca_ttl = "2h"
  experimental {{ cache_reload_interval = "1s" }}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{ database_type = "sqlite3" connection_string = "{directory}/server/data.sqlite3" }}
  }}
  KeyManager "disk" {{ plugin_data {{ keys_path = "{directory}/server/keys.json" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"""
_AGENT = """
agent {{
  data_dir = "{directory}/agent"
  log_level = "INFO"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{directory}/agent.sock"
  trust_bundle_path = "{directory}/bundle.pem"
  trust_domain = "{trust_domain}"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  KeyManager "disk" {{ plugin_data {{ directory = "{directory}/agent" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true }} }}
}}
"""


def available() -> bool:
    """Whether SPIRE's programs are in PATH."""
    return bool(shutil.which("spire-server") and shutil.which("spire-agent"))


needed = pytest.mark.skipif(not available(), reason="needs spire-server and spire-agent in PATH")


class Spire:
    """A server and an agent. Every process that runs as this user is entitled to what `selectors` grant.

    `short_ttl` is for how many seconds an SVID has to live at least for an agent that looks every second.
    """

    short_ttl = 8

    def __init__(self, directory: Path, trust_domain: str) -> None:
        self.directory, self.trust_domain = directory, trust_domain
        self.port = _free_port()
        self.server_socket, self.agent_socket = directory / "server.sock", directory / "agent.sock"
        self.selectors = frozenset([Selector("unix", f"uid:{os.getuid()}")])
        self.parent_id = SpiffeId(trust_domain, "/none/yet")
        self._token = ""
        self._server: asyncio.subprocess.Process | None = None
        self._agent: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        facts = {"directory": self.directory, "port": self.port, "trust_domain": self.trust_domain}
        for name, text in (("server", _SERVER), ("agent", _AGENT)):
            (self.directory / name).mkdir(exist_ok=True)
            (self.directory / f"{name}.conf").write_text(text.format(**facts))
        await self.start_server()
        (self.directory / "bundle.pem").write_text(await self.command("bundle", "show"))
        self._token = json.loads(await self.command("token", "generate", "-output", "json"))["value"]
        self.parent_id = SpiffeId(self.trust_domain, f"/spire/agent/join_token/{self._token}")
        await self.start_agent()

    async def start_server(self) -> None:
        self._server = await self._spawn("server")
        await self._ready(self._server, "server", self.server_socket)

    async def stop_server(self) -> None:
        await _stop(self._server)

    async def start_agent(self) -> None:
        """Start it; the token is used the first time and ignored from then on."""
        self._agent = await self._spawn("agent", "-joinToken", self._token)
        await self._ready(self._agent, "agent", self.agent_socket)

    async def stop_agent(self) -> None:
        await _stop(self._agent)

    async def close(self) -> None:
        await self.stop_agent()
        await self.stop_server()

    async def command(self, *arguments: str) -> str:
        """What `spire-server` says."""
        process = await asyncio.create_subprocess_exec(
            "spire-server",
            *arguments,
            "-socketPath",
            str(self.server_socket),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, f"spire-server {' '.join(arguments)}: {err.decode()} {out.decode()}"
        return out.decode()

    async def entries(self) -> dict[str, dict[str, Any]]:
        """All registration entries by their IDs."""
        found = json.loads(await self.command("entry", "show", "-output", "json"))["entries"]
        return {entry["id"]: entry for entry in found}

    async def trust(self, bundle: TrustBundle) -> None:
        """Know another trust domain."""
        path = self.directory / "foreign.json"
        path.write_bytes(encode(bundle))
        name = f"spiffe://{bundle.trust_domain}"
        await self.command("bundle", "set", "-format", "spiffe", "-id", name, "-path", str(path))

    async def rotate_ca(self) -> None:
        """Make another CA, have it sign from now on, and have SVIDs of the former one replaced."""
        prepared = json.loads(await self.command("localauthority", "x509", "prepare", "-output", "json"))
        authority = prepared["prepared_authority"]["authority_id"]
        await self.command("localauthority", "x509", "activate", "-authorityID", authority)

    async def _spawn(self, name: str, *arguments: str) -> asyncio.subprocess.Process:
        with (self.directory / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                f"spire-{name}",
                "run",
                "-config",
                str(self.directory / f"{name}.conf"),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _ready(self, process: asyncio.subprocess.Process, name: str, path: Path) -> None:
        for _ in range(600):
            assert process.returncode is None, (self.directory / f"{name}.log").read_text()
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                return
            await asyncio.sleep(0.1)
        raise AssertionError((self.directory / f"{name}.log").read_text())


async def _stop(process: asyncio.subprocess.Process | None) -> None:
    if process is not None and process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def spire(trust_domain: str = TRUST_DOMAIN) -> AsyncIterator[Spire]:
    """SPIRE with an agent that has just joined. Its directory and processes are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="spire-") as directory:  # short: sockets are in it
        running = Spire(Path(directory), trust_domain)
        try:
            await running.start()
            yield running
        except BaseException:
            for name in ("server", "agent"):
                with contextlib.suppress(OSError):
                    sys.stderr.write(f"--- {name}\n{(running.directory / f'{name}.log').read_text()[-4000:]}\n")
            raise
        finally:
            await running.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
