"""`python -m bench.identity`: what an identity server can do. The last line on stdout is one JSON object.

A real server process with SQLite, its HTTPS API on loopback, and one agent's client in this process, which shares the
machine's cores with it. CSRs are made beforehand: agents on many nodes make theirs, the server signs for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from rich.console import Console
from rich.table import Table

from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.api.values import parse_host_port
from nginx_mesh.cli.unix_http import UnixHttpClient
from nginx_mesh.identity.agent.remote import RemoteClient, join_token
from nginx_mesh.identity.common.client import Registration, SvidRequest
from nginx_mesh.identity.common.keymanager.memory import MemoryKeyManager
from nginx_mesh.identity.common.keys import generate_key
from nginx_mesh.identity.common.x509svid import request_svid

_TRUST_DOMAIN = "example.org"
# What an agent asks for at once, and how many agents do.
_BATCH = 64
_CONCURRENT = 4


class _Server:
    """`nginx-mesh-identity` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        identity = {
            "dataDir": str(directory / "data"),
            "listen": f"127.0.0.1:{self.port}",
            "adminSocket": str(directory / "admin.sock"),
            "bundlePath": str(directory / "bundle.pem"),
            "serverID": "bench",
        }
        config = {"mtls": {"trustDomain": _TRUST_DOMAIN}, "identity": identity}
        (directory / "identity.yaml").write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Seconds from exec until it said that it is ready."""
        command = [sys.executable, "-m", "nginx_mesh.identity", "--config", str(self.directory / "identity.yaml")]
        begun = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._process = process
        assert process.stderr is not None
        while line := process.stderr.readline():
            if line.rstrip().endswith(b": ready"):
                taken = time.monotonic() - begun
                # Nobody reads on, and it must not wait for that.
                self._drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
                return taken
        raise click.ClickException(f"the server ended with status {process.wait()}")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            self._drain.wait()
            self._process = None

    def memory(self) -> float:
        """MiB of PSS."""
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024

    def client(self) -> RemoteClient:
        """An agent that may register."""
        made = UnixHttpClient(self.directory / "admin.sock").request(
            "POST", "/identity/tokens", {"name": "bench", "registrar": True}
        )
        token = self.directory / "token"
        token.write_text(made["token"])
        return RemoteClient(
            parse_host_port(f"127.0.0.1:{self.port}"),
            _TRUST_DOMAIN,
            bootstrap=lambda: x509.load_pem_x509_certificates((self.directory / "bundle.pem").read_bytes()),
            evidence=join_token(token),
            keep=MemoryKeyManager(),
        )


@contextlib.contextmanager
def _running(directory: Path) -> Iterator[_Server]:
    server = _Server(directory)
    try:
        yield server
    finally:
        server.stop()


def _registrations(count: int) -> list[Registration]:
    return [
        Registration(f"pod-{number}", str(_id(number)), (f"s{number}.shop", f"s{number}.shop.svc"))
        for number in range(count)
    ]


def _id(number: int) -> SpiffeId:
    return workload_id(_TRUST_DOMAIN, "shop", f"s{number % 1000}")


def _requests(count: int) -> list[SvidRequest]:
    key = generate_key("ec-p256")
    return [
        SvidRequest(f"pod-{number}", request_svid(key, None).public_bytes(serialization.Encoding.DER))
        for number in range(count)
    ]


async def _issue(client: RemoteClient, requests: list[SvidRequest], seconds: float) -> float:
    """SVIDs per second."""
    issued, end, begun = 0, time.monotonic() + seconds, time.monotonic()

    async def agent(offset: int) -> None:
        nonlocal issued
        while time.monotonic() < end:
            batch = [requests[(offset + number) % len(requests)] for number in range(_BATCH)]
            offset += _BATCH * _CONCURRENT
            for answer in await client.sign(batch):
                if not answer.chain:
                    raise click.ClickException(f"no SVID for {answer.entry_id}: {answer.refused}")
                issued += 1

    await asyncio.gather(*(agent(number * _BATCH) for number in range(_CONCURRENT)))
    return issued / (time.monotonic() - begun)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--workloads", default=10_000, show_default=True, help="How many are registered.")
@click.option("--seconds", default=10.0, show_default=True, help="How long each round of issuing lasts.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of issuing, and restarts.")
def main(workloads: int, seconds: float, rounds: int) -> None:
    """Measure issuing, memory and the time to start of an identity server with many registered workloads."""
    with tempfile.TemporaryDirectory(prefix="nginx-mesh-bench-") as name, _running(Path(name)) as server:
        server.start()
        empty = server.memory()
        client = server.client()
        begun = time.monotonic()
        asyncio.run(client.sync(_registrations(workloads)))
        registering = time.monotonic() - begun
        registered = server.memory()
        requests = _requests(workloads)
        rates = [asyncio.run(_issue(server.client(), requests, seconds)) for _ in range(rounds)]
        loaded = server.memory()
        starts = []
        for _ in range(rounds):
            server.stop()
            starts.append(server.start())
        restarted = server.memory()
    figures = {
        "svids_per_second": round(statistics.median(rates)),
        "registered_seconds": round(registering, 2),
        "ready_seconds": round(statistics.median(starts), 2),
        "pss_empty_mib": round(empty, 1),
        "pss_registered_mib": round(registered, 1),
        "pss_issuing_mib": round(loaded, 1),
        "pss_restarted_mib": round(restarted, 1),
    }
    table = Table("figure", "median", "least", "most", title=f"Identity server, {workloads} registered workloads")
    table.add_row("SVIDs per second", f"{statistics.median(rates):.0f}", f"{min(rates):.0f}", f"{max(rates):.0f}")
    table.add_row("exec to ready, s", f"{statistics.median(starts):.2f}", f"{min(starts):.2f}", f"{max(starts):.2f}")
    table.add_row("registering all at once, s", f"{registering:.2f}")
    for what, mib in (("empty", empty), ("registered", registered), ("issued", loaded), ("restarted", restarted)):
        table.add_row(f"PSS, {what}, MiB", f"{mib:.1f}")
    Console().print(table)
    click.echo(msgspec.json.encode(figures | {"workloads": workloads}).decode())


if __name__ == "__main__":
    main()
