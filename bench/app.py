"""The server application: one nginx worker that answers 1 KiB and 64 KiB bodies from memory."""

from __future__ import annotations

from pathlib import Path

from bench import nginx
from bench.process import APP_UID, Process
from bench.topology import APP_PORT, Topology

BODIES = {"1k": 1024, "64k": 64 * 1024}
PATH_REGEX = "/bench/[0-9]+k"
DENIED_PATH = "/other"

_BLOCK = 1024


def path(body: str) -> str:
    """The path that answers the body named `body`, a key of BODIES."""
    return f"/bench/{body}"


class App:
    """The application of one topology. It answers DENIED_PATH too: a request for that must be stopped by a proxy."""

    def __init__(self, root: Path, topology: Topology, directory: Path) -> None:
        self._process = Process(root, topology.server, directory, topology.cores.load, uid=APP_UID)

    def start(self) -> None:
        """Start it; it is ready when a request through the proxies succeeds."""
        # One token of nginx configuration holds at most 4 KiB: long bodies are a variable, repeated.
        locations = "\n".join(
            f'location = {path(body)} {{ return 200 "{"$block" * (size // _BLOCK)}"; }}'
            for body, size in BODIES.items()
        )
        server = f"""
        access_log off;
        server {{
            listen {APP_PORT};
            default_type text/plain;
            set $block "{"x" * _BLOCK}";
            {locations}
            location / {{ return 200 "open"; }}
        }}
        """
        self._process.write("nginx.conf", nginx.configuration(server))
        self._process.start(*nginx.command())

    def stop(self) -> None:
        """End it."""
        self._process.stop()
