"""What operators ask of a real mesh: status, services, config, version, health and metrics."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nginx_mesh.cli.errors import ApiError
from nginx_mesh.cli.local.mesh import LocalMesh
from nginx_mesh.identity.agent.spire.workload import WorkloadClient
from nginx_mesh.identity.common.keys import from_pem
from nginx_mesh.identity.common.workload import WorkloadContext
from nginx_mesh.version import version
from tests.unit.observe.promtool import complaints

from .localcli import LocalCli
from .manifests import IDLE_CLIENT, SHOP, web

pytestmark = pytest.mark.mesh

OUTSIDE = """
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: default}
spec: {selector: {app: outside}, ports: [{port: 80}]}
---
"""
# What must not leave the machine, where applications have it and where they say it.
PLANTED = {
    "password": "Pl4nted-Secret-Passw0rd",
    "env": "pl4nted-value-of-a-variable",
    "config": "pl4nted-content-of-a-file",
    "argument": "pl4nted-argument",
    "header": "pl4nted-header",
    "token": "aJ0intT0ken_pl4nted-0123456789abcdefghijklm",
    "jwt": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJwbDRudGVkIn0.c2lnbmF0dXJl-pl4nted",
}
CHATTY = f"""
apiVersion: v1
kind: Secret
metadata: {{name: password, namespace: shop}}
stringData: {{password: {PLANTED["password"]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: file, namespace: shop}}
data: {{file: {PLANTED["config"]}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: chatty, namespace: shop}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{{name: s, secret: {{secretName: password}}}}]
  containers:
  - name: app
    command: [sh, -c, "cat /s/password; echo; env; echo a log line; sleep infinity", {PLANTED["argument"]}]
    env:
    - {{name: DB_PASSWORD, value: {PLANTED["env"]}}}
    - {{name: T, value: {PLANTED["token"]}}}
    - {{name: J, value: {PLANTED["jwt"]}}}
    volumeMounts: [{{name: s, mountPath: /s}}]
    livenessProbe:
      failureThreshold: 1000
      httpGet: {{port: 9, httpHeaders: [{{name: X-A, value: {PLANTED["header"]}}}]}}
---
"""
APP = SHOP + OUTSIDE + web("10.96.6.6") + IDLE_CLIENT
LIMIT = """
apiVersion: specs.smi.nginx.com/v1alpha2
kind: RateLimit
metadata: {name: nobody, namespace: shop}
spec: {name: ten, rate: 10r/s, destination: {kind: Service, name: nobody, namespace: shop}}
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as found:
        found.ok("up", "-f", "-", "--mtls-svid-ttl", "30m", stdin=APP.encode())
        yield found


def ctl(mesh: LocalCli, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `nginx-meshctl BEFORE COMMAND --mesh NAME ARGUMENTS`."""
    command, *rest = arguments
    return mesh.meshctl(*before, command, "--mesh", mesh.name, *rest)


def status(mesh: LocalCli, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ctl(mesh, "status", "-o", "json", *arguments).stdout)
    return found


def samples(mesh: LocalCli) -> dict[str, float]:
    """Metrics of the daemon, by series."""
    text = b"".join(LocalMesh(mesh.paths).api().stream("/metrics")).decode()
    assert complaints(text) == ""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}


def test_a_mesh_that_is_well_says_so_with_every_sidecar_and_its_certificate(mesh: LocalCli) -> None:
    found = ctl(mesh, "status", "--wait")
    assert found.returncode == 0, found.stdout
    assert found.stdout.startswith(f'mesh "{mesh.name}" is well\n')
    document = status(mesh)
    assert document["problems"] == []
    sidecars = document["sidecars"]
    assert (sidecars["total"], sidecars["states"]["synced"]) == (3, 3)
    assert all(0 < item["version"] <= sidecars["state_version"] for item in sidecars["items"])
    assert all(0 < item["not_after"] - document["daemon"]["since"] < 3600 for item in sidecars["items"])
    wide = ctl(mesh, "status", "-o", "wide").stdout
    assert len(re.findall(r"^shop +\S+ +synced +\d+ +2\dm +spiffe://example.org/ns/shop/sa/default$", wide, re.M)) == 3


def test_a_policy_that_is_not_in_force_is_a_warning_and_the_mesh_is_well(mesh: LocalCli) -> None:
    mesh.apply(LIMIT)
    mesh.wait(lambda: any("ratelimit/nobody" in each["about"] for each in status(mesh)["warnings"]), 10)
    found = ctl(mesh, "status")
    assert found.returncode == 0
    assert re.search(r"^policies +0 of 1 in force$", found.stdout, re.M)
    assert samples(mesh)['nginx_mesh_policies{in_force="false"}'] == 1
    mesh.ok("delete", "rl", "nobody", "-n", "shop")


def test_services_are_those_with_sidecars(mesh: LocalCli) -> None:
    found = ctl(mesh, "services")
    assert [line.split()[0] for line in found.stdout.splitlines() if not line.startswith(" ")] == [
        "Service",
        "shop/web",
    ]
    assert len(found.stdout.splitlines()) == 3
    (service,) = json.loads(ctl(mesh, "services", "-n", "shop", "-o", "json").stdout)
    assert service["ports"] == [{"port": 80, "name": "", "protocol": "http", "target": 8080}]
    assert {each["spiffe_id"] for each in service["upstreams"]} == {"spiffe://example.org/ns/shop/sa/default"}
    nothing = ctl(mesh, "services", "-n", "default")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "No services of the mesh in namespace default" in nothing.stderr


def test_config_shows_what_changed_since_the_mesh_was_made(mesh: LocalCli) -> None:
    mesh.ok("up", "--nginx-lb-method", "random two")
    found = json.loads(ctl(mesh, "config").stdout)
    assert (found["nginxLBMethod"], found["mtls"]["svidTTL"], found["mtls"]["mode"]) == (
        "random two",
        "30m",
        "permissive",
    )


def test_version_tells_that_of_the_daemon_and_of_the_sidecars_image(mesh: LocalCli) -> None:
    lines = ctl(mesh, "version").stdout.splitlines()
    assert lines[:2] == [f"nginx-meshctl - v{version()}", f"nginx-mesh-local - v{version()}"]
    assert re.fullmatch(rf"nginx-mesh-sidecar - v{re.escape(version())} \([0-9a-f]{{16}}, nginx 1\..*\)", lines[2])


def test_the_daemon_counts_pushes_rotations_and_sidecars(mesh: LocalCli) -> None:
    before = samples(mesh)
    assert before['nginx_mesh_sidecars{state="synced"}'] == 3
    assert before["nginx_mesh_svid_rotations_total"] >= 3
    mesh.ok("up", "--nginx-error-log-level", "notice")
    mesh.wait(lambda: all(item["state"] == "synced" for item in status(mesh)["sidecars"]["items"]), 10)
    after = samples(mesh)
    accepted = 'nginx_mesh_pushes_total{result="accepted"}'
    assert after[accepted] >= before[accepted] + 3
    assert after["nginx_mesh_push_seconds_count"] == after[accepted]
    assert after["nginx_mesh_state_version"] > before["nginx_mesh_state_version"]


def package(mesh: LocalCli, directory: Path, *arguments: str) -> dict[str, str]:
    """A support package's files, by their names below its directory."""
    made = ctl(mesh, "supportpkg", "-o", str(directory), *arguments)
    assert made.returncode == 0, made.stderr
    (path,) = directory.glob("nsm-supportpkg-*.tar.gz")
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(path) in made.stdout and "asking the daemon" in made.stdout
    with tarfile.open(path) as found:
        members = {name.partition("/")[2]: found.extractfile(name) for name in found.getnames()}
        return {name: member.read().decode() for name, member in members.items() if member is not None}


async def held(socket: Path) -> WorkloadContext:
    """What an agent's socket gives."""
    given: asyncio.Queue[WorkloadContext] = asyncio.Queue()
    running = asyncio.create_task(WorkloadClient(socket, given.put_nowait).run())
    try:
        while not (context := await asyncio.wait_for(given.get(), 20)).svids:
            pass
        return context
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def private_keys(mesh: LocalCli) -> list[ec.EllipticCurvePrivateKey]:
    """Every private key of the mesh: those of its CAs, and those of all SVIDs."""
    given = asyncio.run(held(mesh.paths.run / "agent.sock"))
    keys = [svid.key for svid in given.svids]
    files = [path.read_bytes() for path in (mesh.paths.state / "identity/keys").iterdir()]
    keys += [from_pem(text[text.index(b"-----BEGIN") :].decode()) for text in files]
    assert len(keys) >= 3
    return [key for key in keys if isinstance(key, ec.EllipticCurvePrivateKey)]


def test_a_support_package_has_what_support_needs_and_nothing_that_is_secret(mesh: LocalCli, tmp_path: Path) -> None:
    def log() -> str:
        return mesh.run("logs", "chatty", "-n", "shop", "-c", "app").stdout

    mesh.apply(CHATTY)
    mesh.wait(lambda: "a log line" in log(), 20)
    assert all(PLANTED[name] in log() for name in ("password", "env", "token", "jwt"))
    files = package(mesh, tmp_path)
    everything = "\n".join(files.values())

    for name, value in PLANTED.items():
        assert value not in everything, name
        assert base64.b64encode(value.encode()).decode() not in everything, name
    assert "PRIVATE KEY" not in everything
    for key in private_keys(mesh):
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        whole = base64.b64encode(der).decode()
        assert not [part for part in (whole, whole[40:80], der.hex()) if part in everything]
        secret = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
        assert secret.hex() not in everything
        assert base64.b64encode(secret).decode().rstrip("=") not in everything

    assert "a log line" in files["pods/shop/chatty/app.log"]
    assert json.loads(files["daemon/status.json"])["sidecars"]["total"] == 4
    pod = next(name.split("/")[2] for name in files if name.startswith("pods/shop/web-"))
    state = json.loads(files[f"pods/shop/{pod}/state.json"])
    assert "key" not in state["identity"]
    assert "BEGIN CERTIFICATE" in state["identity"]["svid"]
    assert "inbound/8080" in state
    assert "destination/10.96.6.6:80" in json.loads(files["states/permissive.json"])
    assert json.loads(files[f"pods/shop/{pod}/status.json"])["spiffe_id"].startswith("spiffe://")
    assert "redirect to :8901" in files[f"pods/shop/{pod}/nftables.txt"]
    assert "10.96.6.6" in files["network/nftables.txt"]
    assert "nginxplus_" in files[f"pods/shop/{pod}/metrics.txt"]
    assert "nginx_mesh_sidecars" in files["daemon/metrics.txt"]
    assert "serving mesh" in files["daemon/daemon.log"]
    for name in ("Pod", "Secret", "Service", "Deployment", "MeshConfig"):
        assert json.loads(files[f"objects/{name}.json"])
    assert json.loads(files["identity/authority.json"])["authorities"]
    assert version() in files["versions.json"]
    assert "- nothing that should be" in files["README.txt"]


def test_sidecar_logs_can_be_left_out_of_a_support_package_and_files_are_not_replaced(
    mesh: LocalCli, tmp_path: Path
) -> None:
    names = package(mesh, tmp_path, "--disable-sidecar-logs")
    assert not [name for name in names if name.endswith("nginx-mesh-sidecar.log")]
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    again = ctl(mesh, "supportpkg", "-o", str(path))
    assert (again.returncode, path.read_bytes()) == (1, before)
    assert "exists: name another file with --output" in again.stderr
    nowhere = ctl(mesh, "supportpkg", "-o", str(tmp_path / "none/x.tar.gz"))
    assert nowhere.returncode == 1 and "No such file or directory" in nowhere.stderr


def test_a_store_that_cannot_be_written_makes_the_daemon_unready_and_the_mesh_unwell(mesh: LocalCli) -> None:
    daemon = LocalMesh(mesh.paths).api()
    assert daemon.get("/readyz")["ready"] is True
    with closing(sqlite3.connect(mesh.paths.state / "store.db")) as database:
        database.execute("ALTER TABLE objects RENAME TO away")
    try:
        with pytest.raises(ApiError, match="no such table"):
            daemon.request("PATCH", "/mesh/settings", {"log_format": "json"})
        with pytest.raises(ApiError, match=r'"ready":false.*no such table'):
            daemon.get("/readyz")
        found = ctl(mesh, "status")
        assert found.returncode == 1
        assert "daemon: store: cannot write" in found.stdout
    finally:
        with closing(sqlite3.connect(mesh.paths.state / "store.db")) as database:
            database.execute("ALTER TABLE away RENAME TO objects")
    assert ctl(mesh, "status", "--wait", "--timeout", "10s").returncode == 0


def test_a_daemon_that_hangs_or_is_gone_makes_the_mesh_unwell_and_says_what_to_do(
    mesh: LocalCli, tmp_path: Path
) -> None:
    os.kill(mesh.daemon_pid(), signal.SIGSTOP)
    try:
        found = ctl(mesh, "status", before=("-t", "1s"))
    finally:
        os.kill(mesh.daemon_pid(), signal.SIGCONT)
    assert found.returncode == 1
    assert "does not answer (timed out)" in found.stdout
    os.kill(mesh.daemon_pid(), signal.SIGTERM)
    mesh.wait(lambda: not LocalMesh(mesh.paths).is_running(), 10)
    found = ctl(mesh, "status", "--wait", "--timeout", "1s")
    assert (found.returncode, found.stderr) == (1, "")
    assert "does not run (its pods go on): start it again with `nginx-meshctl local up`" in found.stdout
    files = package(mesh, tmp_path)
    assert (
        "what the daemon says (status, services, identities, states of sidecars): it does not run"
        in files["README.txt"]
    )
    assert json.loads(files["objects/Pod.json"]) and json.loads(files["daemon/made-with.json"])
    assert "stopped; the pods go on" in files["daemon/daemon.log"]
    assert [name for name in files if name.endswith("/metrics.txt") and name.startswith("pods/shop/web")]
    assert not [value for value in PLANTED.values() if value in "".join(files.values())]
    versions = ctl(mesh, "version")
    assert (versions.returncode, versions.stdout) == (0, f"nginx-meshctl - v{version()}\n")
    assert "Unable to get versions" in versions.stderr
    mesh.ok("up")
    assert ctl(mesh, "status", "--wait", "--timeout", "20s").returncode == 0


def test_a_mesh_that_is_not_there_is_an_error(mesh: LocalCli) -> None:
    for command in ("status", "services", "config"):
        found = ctl(mesh.beside(), command)
        assert (found.returncode, found.stdout) == (1, "")
        assert "there is no mesh named" in found.stderr and "nginx-meshctl local up" in found.stderr
