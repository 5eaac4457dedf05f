"""No request fails, whatever the mesh goes through meanwhile.

A meshed client makes 500 requests per second, HTTP and gRPC by turns, from before the first change to after the last.
Meanwhile SVIDs rotate every 10 s and the CA once, the servers scale 1 → 5 → 2, the mesh goes from permissive to strict,
and the daemon is killed in the middle of scaling down and started again.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.cli.local import daemon
from nginx_mesh.cli.local.mesh import LocalMesh

from .localcli import LocalCli
from .soak import RATE, Load, Watch, application, ready_pods, sidecar_errors, sidecar_log

pytestmark = pytest.mark.mesh

SECONDS = 60
# Renewed after 2/5 to 1/2 of their life: every 10 s. Flags and MeshConfig know whole minutes only.
SVID_SECONDS = 22
SVID_PERIOD = SVID_SECONDS / 2
# Hands over to its successor after 5/6 of its life.
CA_SECONDS = 45
STRICT = """
apiVersion: nsm.nginx.com/v1alpha2
kind: MeshConfig
metadata: {name: nginx-mesh-config, namespace: nginx-mesh}
spec: {meshConfigClassName: nginx-mesh-config-class, mtls: {mode: strict}}
"""
GET = """
import http.client
connection = http.client.HTTPConnection("server.shop", timeout=5)
connection.request("GET", "/echo")
print(connection.getresponse().status)
"""


def servers(mesh: LocalCli) -> set[str]:
    """The names of the ready servers."""
    return {name for name in ready_pods(mesh) if name.startswith("server-")}


def outsider(mesh: LocalCli) -> str:
    """What a pod outside the mesh gets: a status, or what went wrong."""
    result = mesh.run("exec", "outsider", "--", "python3", "-c", GET)
    return result.stdout.strip() or result.stderr.strip().splitlines()[-1]


@pytest.fixture
def mesh() -> Iterator[LocalCli]:
    """A mesh with one server."""
    with LocalCli() as mesh:
        daemon.create(LocalMesh(mesh.paths), MeshSettings(svid_ttl=SVID_SECONDS, ca_ttl=CA_SECONDS))
        mesh.ok("up", "-f", "-", stdin=application().encode())
        yield mesh


def test_no_request_fails_while_everything_changes(mesh: LocalCli) -> None:
    (first,) = servers(mesh)
    assert outsider(mesh) == "200"
    with Watch(mesh) as watch, Load(mesh, SECONDS) as load:
        load.until(0.1)
        mesh.ok("scale", "deploy/server", "--replicas", "5", "-n", "shop")
        mesh.wait(lambda: len(servers(mesh)) == 5, 30)
        load.until(0.4)
        mesh.apply(STRICT)
        load.until(0.5)
        all_servers = servers(mesh)
        mesh.ok("scale", "deploy/server", "--replicas", "2", "-n", "shop")
        os.kill(mesh.daemon_pid(), signal.SIGKILL)
        load.until(0.6)
        mesh.ok("up")
        mesh.wait(lambda: len(mesh.pods()) == 3, 30)
        assert load.runs, "the changes took longer than the load"

    report = load.report
    print(json.dumps(report))
    assert (report["failed"], report["reasons"]) == (0, {}), sidecar_errors(mesh)
    assert report["ok"] == report["sent"] == RATE * SECONDS
    assert {protocol["ok"] for protocol in report["protocols"].values()} == {RATE * SECONDS // 2}
    assert all_servers <= report["served_by"].keys()
    survivors = {"client", *servers(mesh)}
    assert first in survivors and len(survivors) == 3
    for name in survivors:
        assert len(watch.seen[name].processes) == 1, "nginx was reloaded or restarted"
        assert "exited on signal" not in sidecar_log(mesh, name)
    for name in ("client", first):
        assert len(watch.seen[name].expiries) >= SECONDS / SVID_PERIOD - 1, "its SVID did not rotate"
    assert len(watch.seen[first].serials) >= SECONDS / SVID_PERIOD - 1
    assert len(watch.seen[first].signers) >= 2, "the CA did not rotate"
    assert outsider(mesh) != "200"
