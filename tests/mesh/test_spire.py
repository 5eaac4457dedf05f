"""A local mesh whose identities come from SPIRE, installed here: pods call each other by mTLS with SPIRE's SVIDs."""

from __future__ import annotations

import time

import msgspec
import pytest
import yaml

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.cli.local import daemon
from nginx_mesh.cli.local.mesh import LocalMesh
from nginx_mesh.identity.config import mesh_settings, read_config
from nginx_mesh.local.files import write_file

from ..interop import spire
from .identityserver import identities
from .localcli import LocalCli
from .manifests import SHOP, idle_pod, service, service_account

WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: web
  containers:
  - name: app
    command: [python3, -m, http.server, "8080"]
    ports: [{containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
"""
APP = SHOP + service("web", "shop", "app: web") + service_account("web") + WEB + idle_pod("caller")
CALL = "import urllib.request; print(urllib.request.urlopen('http://web', timeout=5).status)"


def mesh_of(running: spire.Spire) -> LocalCli:
    """A mesh that is not up yet, with SPIRE as its provider."""
    mesh = LocalCli()
    file = running.directory / "identity.yaml"
    section = {
        "agentSocket": "agent.sock",
        "serverSocket": "server.sock",
        "parentID": str(running.parent_id),
        "selectors": sorted(map(str, running.selectors)),
    }
    identity = {"provider": "spire", "spire": section}
    file.write_text(yaml.safe_dump({"mtls": {"trustDomain": running.trust_domain}, "identity": identity}))
    config = read_config(file)
    settings = msgspec.structs.replace(mesh_settings(config, MeshSettings()), mtls_mode="strict", svid_ttl=60)
    daemon.create(LocalMesh(mesh.paths), settings)
    write_file(mesh.paths.state / "identity.json", msgspec.json.encode(config))
    return mesh


@pytest.mark.mesh
@spire.needed
async def test_pods_call_each_other_with_svids_of_spire() -> None:
    async with spire.spire() as running:
        with mesh_of(running) as mesh:
            mesh.ok("up")
            mesh.apply(APP)
            mesh.wait_ready()
            held = identities(mesh)
            entries = await running.entries()
            assert {each["spiffe_id"] for each in held.values()} == {
                f"spiffe://{running.trust_domain}{entry['spiffe_id']['path']}" for entry in entries.values()
            }
            assert held["web"]["not_after"] - time.time() <= 60
            assert mesh.ok("exec", "-n", "shop", "caller", "--", "python3", "-c", CALL).strip() == "200"

            await running.rotate_ca()
            before = held["web"]["bundle"]
            mesh.wait(lambda: len(identities(mesh)["web"]["bundle"]) > len(before), 60)
            mesh.wait(lambda: identities(mesh)["web"]["issuer"] not in before, 90)
            assert mesh.ok("exec", "-n", "shop", "caller", "--", "python3", "-c", CALL).strip() == "200"

            await running.stop_agent()
            await running.stop_server()
            assert mesh.ok("exec", "-n", "shop", "caller", "--", "python3", "-c", CALL).strip() == "200"
