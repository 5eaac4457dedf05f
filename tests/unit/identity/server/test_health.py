"""How an identity server that is a process of its own tells how it is."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.values import HostPort
from nginx_mesh.identity.server.config import parse_health_address
from tests.eventually import wait_until
from tests.mesh.identityserver import IdentityProcess
from tests.unit.observe.promtool import complaints


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Watched(IdentityProcess):
    """A server with its health on a port of the loopback interface."""

    def __init__(self, **mtls: object) -> None:
        self.port = free_port()
        super().__init__({"trustDomain": "example.org", **mtls}, {"healthAddress": str(self.port)})

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def unready(self) -> dict[str, str]:
        code, text = self.ask("/readyz")
        found: dict[str, Any] = json.loads(text)
        assert (code == 200) is found["ready"]
        return {part: reason for part, reason in found["parts"].items() if reason != "ok"}

    def sample(self, series: str) -> float:
        _, text = self.ask("/metrics")
        return float(next(line for line in text.splitlines() if line.startswith(f"{series} ")).rpartition(" ")[2])

    def until_ready(self) -> None:
        wait_until(lambda: not self.unready(), lambda: f"the server is ready, but {self.unready()}", 20)


@pytest.fixture(scope="module")
def server() -> Iterator[Watched]:
    with Watched() as process:
        assert isinstance(process, Watched)
        yield process


def test_a_server_that_issues_is_ready_and_its_metrics_are_as_prometheus_wants_them(server: Watched) -> None:
    server.until_ready()
    assert server.ask("/healthz") == (200, '{"status":"ok"}')
    assert complaints(server.ask("/metrics")[1]) == ""
    assert server.sample('nginx_mesh_ca_expiry_timestamp_seconds{ca="current"}') > time.time()
    assert server.sample("nginx_mesh_bundle_roots") == 1
    assert server.sample("nginx_mesh_agents_connected") == 0
    assert server.sample("process_open_fds") > 0


def test_a_datastore_that_is_away_is_named_and_counted_until_it_is_back(server: Watched) -> None:
    server.until_ready()
    with closing(sqlite3.connect(next((server.directory / "data").glob("*.sqlite3")))) as database:
        database.execute("ALTER TABLE journals RENAME TO away")
        try:
            unready = server.unready()
            assert list(unready) == ["datastore"]
            assert "no such table: journals" in unready["datastore"]
            assert server.sample("nginx_mesh_datastore_errors_total") > 0
            assert server.ask("/healthz")[0] == 200
        finally:
            database.execute("ALTER TABLE away RENAME TO journals")
    assert server.unready() == {}


def test_a_ca_that_its_upstream_did_not_sign_is_named_with_the_reason() -> None:
    upstream = {
        "apiVersion": "v1",
        "upstreamAuthority": "disk",
        "config": {"cert_file_path": "/nonexistent/ca.pem", "key_file_path": "/nonexistent/ca.key"},
    }
    with Watched(upstreamAuthority=upstream) as process:
        assert isinstance(process, Watched)
        unready = process.unready()
        assert list(unready) == ["ca"]
        assert unready["ca"].startswith("there is no valid CA to issue from: ")
        assert "/nonexistent/ca.pem" in unready["ca"]


def test_an_address_that_is_taken_ends_the_server_with_a_clear_error(server: Watched) -> None:
    path = server.directory / "identity.yaml"
    ended = subprocess.run(
        [sys.executable, "-m", "nginx_mesh.identity", "-c", str(path), "--health-address", str(server.port)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 1
    assert "identity.healthAddress: 127.0.0.1:" in ended.stderr and "in use" in ended.stderr


def test_a_port_alone_is_on_loopback_and_bad_addresses_are_refused() -> None:
    assert parse_health_address("9000") == HostPort("127.0.0.1", 9000)
    assert parse_health_address("0.0.0.0:9000") == HostPort("0.0.0.0", 9000)
    assert parse_health_address("unix:/run/health.sock") == Path("/run/health.sock")
    for bad in ("99999", "host", "", "0"):
        with pytest.raises(FieldError, match=r"identity\.healthAddress"):
            parse_health_address(bad)


def test_the_process_ends_at_once_while_its_health_is_asked_for() -> None:
    with Watched() as process:
        assert isinstance(process, Watched)
        with socket.create_connection(("127.0.0.1", process.port)):
            start = time.monotonic()
            process.end(signal.SIGTERM)
            assert time.monotonic() - start < 10
