"""No request fails, whatever identity goes through meanwhile.

A meshed client makes 500 requests per second, HTTP and gRPC by turns, over mTLS. NGINX_MESH_SOAK_SECONDS makes the load
longer than a test suite has time for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.cli.local import daemon
from nginx_mesh.cli.local.mesh import LocalMesh
from tests.eventually import wait_until
from tests.unit.identity.server.upstream.pki import make_ca

from .identityserver import IdentityProcess, identities
from .localcli import LocalCli
from .soak import RATE, Load, Watch, application, sidecar_errors

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(900)]

SECONDS = int(os.environ.get("NGINX_MESH_SOAK_SECONDS", "60"))
# The shortest life that flags take.
SVID_SECONDS = 60


@contextmanager
def loaded(mesh: LocalCli, seconds: int) -> Iterator[tuple[Load, Watch]]:
    """A strict mesh with the application, its client at work; no request may fail."""
    mesh.ok("up", "--mtls-mode", "strict", "-f", "-", stdin=application().encode())
    with Watch(mesh) as watch, Load(mesh, seconds) as load:
        yield load, watch
        assert load.runs, "what the test does took longer than the load"
    print(load.report)
    assert (load.report["failed"], load.report["reasons"]) == (0, {}), sidecar_errors(mesh)
    assert load.report["ok"] == load.report["sent"] == RATE * seconds


def serials(mesh: LocalCli) -> dict[str, str]:
    """The serial number of every pod's SVID."""
    return {pod: held["serial"] for pod, held in identities(mesh).items()}


def issuers(mesh: LocalCli) -> set[str]:
    """Who signed the SVIDs of a mesh."""
    return {held["issuer"] for held in identities(mesh).values()}


def test_cas_that_are_rotated_by_force_three_times() -> None:
    with LocalCli() as mesh:
        daemon.create(LocalMesh(mesh.paths), MeshSettings(svid_ttl=SVID_SECONDS))
        with loaded(mesh, SECONDS) as (load, watch):
            for share in (0.1, 0.35, 0.6):
                load.until(share)
                before = issuers(mesh)
                LocalMesh(mesh.paths).api().request("POST", "/identity/rotate", {"overlap": 3})
                wait_until(lambda before=before: not issuers(mesh) & before, "all SVIDs are of the new CA", 20)  # type: ignore[misc]
            load.until(0.95)
        (server,) = [name for name in watch.seen if name.startswith("server-")]
        assert len(watch.seen[server].signers) >= 4
        assert all(len(seen.processes) == 1 for seen in watch.seen.values()), "nginx was reloaded or restarted"


def test_an_identity_server_that_is_killed_and_comes_back() -> None:
    with (
        IdentityProcess({"svidTTL": "1m", "spireServerKeyManager": "disk"}) as server,
        server.mesh() as mesh,
        loaded(mesh, 75) as (load, _),
    ):
        ca, first = server.signing(), serials(mesh)
        server.end(signal.SIGKILL)
        server.start()
        time.sleep(3)
        assert server.signing() == ca
        assert {pod: serial for pod, serial in serials(mesh).items() if pod in first} == first, "issued needlessly"

        server.end(signal.SIGKILL)
        time.sleep(SVID_SECONDS / 2 + 5)  # all of them are overdue by now
        overdue = serials(mesh)
        server.start()
        wait_until(lambda: all(serials(mesh)[pod] != overdue[pod] for pod in overdue), "all SVIDs are renewed", 15)
        assert server.signing() == ca
        assert load.runs


def test_a_move_below_the_company_root_and_keys_that_are_lost_there(tmp_path: Path) -> None:
    root = make_ca("Company Root")
    intermediate = make_ca("Company Mesh CA", root)
    for name, text in (
        ("intermediate.pem", intermediate.pem),
        ("intermediate.key", intermediate.key_pem),
        ("root.pem", root.pem),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    disk = {
        "cert_file_path": str(tmp_path / "intermediate.pem"),
        "key_file_path": str(tmp_path / "intermediate.key"),
        "bundle_file_path": str(tmp_path / "root.pem"),
    }
    with IdentityProcess({"svidTTL": "1m"}) as server, server.mesh() as mesh, loaded(mesh, 60) as (load, _):
        alone = server.signing()
        server.end(signal.SIGTERM)
        upstream = {"apiVersion": "v1", "upstreamAuthority": "disk", "config": disk}
        server.mtls |= {"upstreamAuthority": upstream, "caKeyType": "ec-p384"}
        server.write_config()
        server.start()
        assert server.signing() == alone, "the company's CA took over before anybody knew its root"
        server.admin("POST", "/rotate", {"overlap": 3})
        wait_until(lambda: issuers(mesh) == {server.signing()} != {alone}, "all SVIDs are below the company root", 20)

        below = server.signing()
        server.end(signal.SIGTERM)
        server.mtls["spireServerKeyManager"] = "memory"
        server.write_config()
        server.start()
        assert server.signing() != below, "the keys were not lost"
        wait_until(lambda: issuers(mesh) == {server.signing()}, "all SVIDs are renewed by the CA with new keys", 40)
        assert load.runs
