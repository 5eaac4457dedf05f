"""Applications of a local mesh get their own identity at their Workload API socket, and nobody else's."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .localcli import LocalCli
from .manifests import service, service_account

NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
"""
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, injector.nsm.nginx.com/auto-inject: enabled}}
spec:
  serviceAccountName: web
  containers:
  - name: app
    command: [sleep, "3600"]
    volumeMounts: [{name: spiffe, mountPath: /spiffe, readOnly: true}]
  volumes: [{name: spiffe, csi: {driver: csi.spiffe.io, readOnly: true}}]
---
apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: shop, labels: {nsm.nginx.com/enable-ingress: "true"}}
spec:
  containers: [{name: app, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: outsider, namespace: shop}
spec:
  containers: [{name: app, command: [sleep, "3600"]}]
"""
APP = NAMESPACE + service_account("web") + service("web", "shop", "app: web") + PODS

# The client library that SPIFFE's own project publishes, in the virtual environment that pods see.
FETCH = """
import json, sys
from cryptography import x509
from spiffe import WorkloadApiClient
with WorkloadApiClient("unix://" + sys.argv[1]) as client:
    found = client.fetch_x509_context()
    leaf = found.default_svid.leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    token = client.fetch_jwt_svid(audience={"test"})
    claims = client.validate_jwt_svid(token.token, "test")
    print(json.dumps({
        "ids": [str(svid.spiffe_id) for svid in found.x509_svids],
        "dns": names.get_values_for_type(x509.DNSName),
        "serial": f"{leaf.serial_number:x}",
        "jwt": str(token.spiffe_id),
        "validated": str(claims.spiffe_id),
    }))
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as mesh:
        mesh.ok("up", "-f", "-", stdin=APP.encode())
        yield mesh


def fetch(mesh: LocalCli, pod: str, socket: str) -> dict[str, object]:
    """What an application gets at its socket."""
    answer = mesh.ok(
        "exec", pod, "-n", "shop", "-c", "app", "--", "/opt/nginx-mesh/venv/bin/python", "-c", FETCH, socket
    )
    found: dict[str, object] = json.loads(answer)
    return found


def test_a_meshed_pod_gets_its_own_identity_with_the_names_of_its_services(mesh: LocalCli) -> None:
    found = fetch(mesh, "web", "/spiffe/agent.sock")
    assert found["ids"] == ["spiffe://example.org/ns/shop/sa/web"]
    assert found["jwt"] == found["validated"] == "spiffe://example.org/ns/shop/sa/web"
    assert found["dns"] == ["web.shop", "web.shop.svc", "web.shop.svc.cluster.local"]


def test_a_gateway_gets_its_own_identity_where_spiffe_clients_look(mesh: LocalCli) -> None:
    found = fetch(mesh, "gateway", "/run/spire/sockets/agent.sock")
    assert found["ids"] == ["spiffe://example.org/ns/shop/sa/default"]


def test_a_pod_cannot_reach_the_sockets_of_others(mesh: LocalCli) -> None:
    for place in ("/spiffe", "/run/spire/sockets", str(mesh.paths.run)):
        assert mesh.run("exec", "outsider", "-n", "shop", "--", "ls", place).returncode != 0


def test_the_nodes_socket_gives_root_the_identities_of_all_its_workloads(mesh: LocalCli) -> None:
    socket = mesh.paths.run / "agent.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    answer = subprocess.run([sys.executable, "-c", FETCH, str(socket)], capture_output=True, text=True, check=True)
    accounts = ("default", "web")
    assert set(json.loads(answer.stdout)["ids"]) == {f"spiffe://example.org/ns/shop/sa/{name}" for name in accounts}


def test_sockets_come_back_with_the_daemon(mesh: LocalCli) -> None:
    os.kill(mesh.daemon_pid(), signal.SIGKILL)
    mesh.ok("up")
    assert fetch(mesh, "web", "/spiffe/agent.sock")["ids"] == ["spiffe://example.org/ns/shop/sa/web"]


def test_the_names_in_a_certificate_follow_the_services(mesh: LocalCli) -> None:
    mesh.apply(service("shop-front", "shop", "app: web"))
    try:
        mesh.wait(lambda: "shop-front.shop.svc" in str(fetch(mesh, "web", "/spiffe/agent.sock")["dns"]))
    finally:
        mesh.ok("delete", "service", "shop-front", "-n", "shop")
