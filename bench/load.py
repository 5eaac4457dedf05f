"""The load: wrk in the client pod, one thread, closed loop; and single requests that prove that a pair works."""

from __future__ import annotations

import http.client
import subprocess
import time
from functools import partial
from pathlib import Path

import msgspec

from bench.app import BODIES, DENIED_PATH, path
from bench.cores import pinned
from bench.pairs import Pair
from bench.topology import SERVICE_ADDRESS, SERVICE_PORT, Topology, inside, namespace_path

_SCRIPT = Path(__file__).with_name("report.lua")
_REQUEST_SECONDS = 2.0


class Cell(msgspec.Struct, frozen=True):
    """One load: how many connections, which body, and whether every request opens a connection of its own."""

    connections: int
    body: str
    new_connections: bool = False

    def __str__(self) -> str:
        size = {"1k": "1 KiB", "64k": "64 KiB"}[self.body]
        how = ", new connection each" if self.new_connections else ""
        return f"{self.connections} x {size}{how}"


class Load(msgspec.Struct, frozen=True):
    """What one wrk run measured. Latencies are from sending a request to its last byte."""

    requests: int
    duration_us: int
    bytes: int
    p50_us: int
    p90_us: int
    p99_us: int
    errors: int

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.requests * 1e6 / self.duration_us


class NotWorkingError(RuntimeError):
    """A pair does not do what it is measured for."""


def run(topology: Topology, cell: Cell, seconds: int) -> Load:
    """Load the service for `seconds`."""
    header = ("-H", "Connection: close") if cell.new_connections else ()
    command = (
        "wrk",
        "-t1",
        f"-c{cell.connections}",
        f"-d{seconds}s",
        "-s",
        str(_SCRIPT),
        *header,
        _url(path(cell.body)),
    )
    done = subprocess.run(
        pinned(topology.cores.load, ("nsenter", f"--net={namespace_path(topology.client)}", *command)),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """The result in what wrk wrote with our script: the last line. ValueError when it is not there."""
    lines = output.splitlines()
    if not lines:
        raise ValueError("wrk wrote nothing")
    return msgspec.json.decode(lines[-1], type=Load)


def prove(pair: Pair, topology: Topology, patience: float) -> None:
    """Wait up to `patience` seconds until requests pass, then prove that the pair does what it is there for.

    NotWorkingError: a body is wrong, or a pair that authorises lets through what no rule allows.
    ProcessDiedError: a proxy ended.
    """
    deadline = time.monotonic() + patience
    while True:
        pair.check()
        try:
            status, body = inside(topology.client, partial(_get, path("1k")))
        except OSError as error:
            status, body = 0, str(error).encode()
        if status == 200:
            break
        if time.monotonic() > deadline:
            raise NotWorkingError(
                f"{pair.name}: no answer in {patience:g} s, last {status}: {body.decode(errors='replace')}"
            )
        time.sleep(0.1)
    for name, size in BODIES.items():
        status, body = inside(topology.client, partial(_get, path(name)))
        if (status, len(body)) != (200, size):
            raise NotWorkingError(
                f"{pair.name}: {path(name)} answers {status} with {len(body)} bytes, not 200 with {size}"
            )
    status, _ = inside(topology.client, partial(_get, DENIED_PATH))
    expected = 403 if pair.authorises else 200
    if status != expected:
        raise NotWorkingError(f"{pair.name}: {DENIED_PATH} answers {status}, not {expected}")


def _get(target: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(SERVICE_ADDRESS, SERVICE_PORT, timeout=_REQUEST_SECONDS)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def _url(target: str) -> str:
    return f"http://{SERVICE_ADDRESS}:{SERVICE_PORT}{target}"
