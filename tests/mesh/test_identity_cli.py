"""`nginx-meshctl identity`, and the flags and files of `local up` about identity, against real meshes and servers."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
import yaml
from cryptography import x509

from nginx_mesh.identity.common.keys import generate_key
from nginx_mesh.identity.common.x509svid import certificate_pem, issue_authority
from tests.unit.identity.server.upstream.pki import make_ca

from .localcli import MESHCTL, Load, LocalCli
from .manifests import SHOP, web

pytestmark = pytest.mark.mesh

APP = SHOP + web("10.96.5.5")
WEB_ID = "spiffe://example.org/ns/shop/sa/default"


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as mesh:
        mesh.ok("up", "-f", "-", stdin=APP.encode())
        yield mesh


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nsm-", dir="/tmp") as path:
        yield Path(path)


def ctl(mesh: LocalCli, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `nginx-meshctl identity ARGUMENTS` for the mesh."""
    where = () if "--socket" in arguments else ("--mesh", mesh.name)
    return mesh.meshctl("identity", *arguments, *where)


def ok(mesh: LocalCli, *arguments: str) -> str:
    result = ctl(mesh, *arguments)
    assert result.returncode == 0, f"{arguments}: {result.stdout}{result.stderr}{mesh.daemon_log()}"
    return result.stdout


def refused(mesh: LocalCli, *arguments: str) -> str:
    result = ctl(mesh, *arguments)
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def signing(mesh: LocalCli) -> dict[str, str]:
    """The CA that signs."""
    found = json.loads(ok(mesh, "show", "-o", "json"))["authority"]["authorities"]
    (ca,) = [each for each in found if each["state"] == "signing"]
    return dict(ca)


def issuers(mesh: LocalCli) -> set[str]:
    """Who signed what the pods hold."""
    return {each["issuer"] for each in json.loads(ok(mesh, "show", "-o", "json"))["identities"]}


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True).stdout


def company(directory: Path, name: str = "company") -> Path:
    """A company's root in files, and the configuration of an upstream authority that signs below it."""
    root = make_ca("Company Root")
    (directory / f"{name}.pem").write_text(root.pem)
    (directory / f"{name}.key").touch(mode=0o600)
    (directory / f"{name}.key").write_text(root.key_pem)
    config = {"cert_file_path": f"{name}.pem", "key_file_path": f"{name}.key"}
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "upstreamAuthority": "disk", "config": config}))
    return file


def test_show_and_describe_tell_who_has_which_svid(mesh: LocalCli) -> None:
    ca = signing(mesh)
    lines = ok(mesh, "show").splitlines()
    rows = [line.split() for line in lines if WEB_ID in line]
    assert [row[0] for row in rows] == ["shop", "shop"]
    assert all(row[1].startswith("web-") and row[3] == ca["id"][:8] for row in rows)
    assert rows[0][5:] == ["web.shop", "+", "2", "more..."]
    described = mesh.ok("describe", "pod", rows[0][1], "-n", "shop")
    identity = described[described.index("Identity:") :]
    found = dict(re.findall(r"^  ([A-Z][A-Za-z ]+):\s+(.*)$", identity, re.MULTILINE))
    assert found["SPIFFE ID"] == WEB_ID
    assert found["Issuer"] == found["Bundle"] == ca["id"]
    assert found["DNS Names"] == "web.shop, web.shop.svc, web.shop.svc.cluster.local"
    assert found["Not Before"] < found["Renewed At"] < found["Not After"]
    assert found["Serial"] in ok(mesh, "show", "-o", "wide")


def test_what_is_minted_is_verified_by_the_bundle_and_its_key_stays_private(mesh: LocalCli, directory: Path) -> None:
    backup, out = "spiffe://example.org/ns/ops/sa/backup", directory / "new" / "backup"
    arguments = ("mint", "x509", backup, "--write", str(out), "--dns", "backup.ops", "--ttl", "5m")
    said = ok(mesh, *arguments)
    key = (out / "key.pem").read_text()
    assert key.splitlines()[1] not in said
    assert stat.S_IMODE((out / "key.pem").stat().st_mode) == 0o600
    (directory / "bundle.pem").write_text(ok(mesh, "bundle"))
    assert "OK" in openssl("verify", "-CAfile", str(directory / "bundle.pem"), str(out / "svid.pem"))
    assert (out / "bundle.pem").read_text() == (directory / "bundle.pem").read_text()
    text = openssl("x509", "-in", str(out / "svid.pem"), "-noout", "-ext", "subjectAltName")
    assert f"URI:{backup}" in text
    assert "DNS:backup.ops" in text
    assert "already there; use --force" in refused(mesh, *arguments)
    assert (out / "key.pem").read_text() == key
    ok(mesh, *arguments, "--force")
    assert (out / "key.pem").read_text() != key
    assert "not in the trust domain" in refused(mesh, "mint", "x509", "spiffe://other.org/x", "--write", str(out / "o"))
    assert not (out / "o").exists()


def test_tokens_that_are_minted_are_verified_by_the_spiffe_bundle(mesh: LocalCli) -> None:
    backup = "spiffe://example.org/ns/ops/sa/backup"
    token = ok(mesh, "mint", "jwt", backup, "--audience", "vault", "--audience", "bank", "--ttl", "60s").strip()
    document = json.loads(ok(mesh, "bundle", "--format", "spiffe"))
    keys = {key["kid"]: jwt.PyJWK(key, "ES256") for key in document["keys"] if key["use"] == "jwt-svid"}
    claims = jwt.decode(token, keys[jwt.get_unverified_header(token)["kid"]], ["ES256"], audience="vault")
    assert (claims["sub"], claims["aud"]) == (backup, ["vault", "bank"])
    assert claims["exp"] - claims["iat"] == 60


def test_a_rotation_replaces_every_svid_without_a_failed_request(mesh: LocalCli) -> None:
    before = signing(mesh)["id"]
    with Load(mesh, "10.96.5.5") as load:
        said = ok(mesh, "rotate-ca", "--overlap", "1s", "--wait")
    after = signing(mesh)["id"]
    assert f"CA {after[:8]} signs" in said
    assert after != before
    assert issuers(mesh) == {after}
    assert load.requests > 20
    assert load.failures == []


def test_tokens_are_good_once_and_private_in_a_file(mesh: LocalCli, directory: Path) -> None:
    file = directory / "vm.token"
    assert ok(mesh, "token", "create", "vm-1", "-o", str(file)).startswith(
        "join token for spiffe://example.org/nginx-mesh/agent/vm-1 written"
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(ok(mesh, "token", "create", "vm-1").strip()) > 30
    assert "is not the name of an agent" in refused(mesh, "token", "create", "a/b")
    assert "of nodes that Kubernetes vouches for" in refused(mesh, "token", "create", "k8s.worker-1")
    assert "there is no agent vm-1" in refused(mesh, "agent", "ban", "vm-1")


def test_federations_are_made_shown_and_ended(mesh: LocalCli, directory: Path) -> None:
    other = directory / "other.pem"
    other.write_text(certificate_pem(issue_authority(generate_key("ec-p256"), "other.example", 0, 2e9, 7)))
    prover = "spiffe://other.example/nginx-mesh/identity"
    spiffe = ("--endpoint", "https://127.0.0.1:1/", "--profile", "https_spiffe", "--endpoint-spiffe-id", prover)
    assert "bundle" in refused(mesh, "federation", "create", "other.example", *spiffe)
    ok(mesh, "federation", "create", "other.example", *spiffe, "--bundle", str(other))
    (line,) = [line for line in ok(mesh, "federation", "list").splitlines() if line.startswith("other.example ")]
    assert line.split()[1:] == ["https_spiffe", "https://127.0.0.1:1/", prover, "1"]
    assert ok(mesh, "bundle", "--trust-domain", "other.example") == other.read_text()
    ok(mesh, "federation", "delete", "other.example")
    assert "no relationship with other.example" in refused(mesh, "federation", "delete", "other.example")
    assert 'there is no bundle of trust domain "other.example"' in refused(
        mesh, "bundle", "--trust-domain", "other.example"
    )


def test_a_mesh_moves_below_a_company_root_and_back_without_a_failed_request(mesh: LocalCli, directory: Path) -> None:
    file, before = company(directory), signing(mesh)["id"]
    pods = mesh.ok("get", "pods", "-n", "shop", "-o", "name")
    with Load(mesh, "10.96.5.5") as load:
        mesh.ok("up", "--mtls-upstream-ca-conf", str(file))
        ok(mesh, "rotate-ca", "--overlap", "1s", "--wait")
        moved = signing(mesh)
        text = ok(mesh, "show")
        mesh.ok("up", "--mtls-upstream-ca-conf", "")
        ok(mesh, "rotate-ca", "--overlap", "1s", "--wait")
    assert moved["id"] != before
    assert moved["issuer"] != "self"
    assert f"disk ({directory}/company.pem)" in text
    assert signing(mesh)["issuer"] == "self"
    assert mesh.ok("get", "pods", "-n", "shop", "-o", "name") == pods
    assert load.requests > 50
    assert load.failures == []


def test_a_wrong_upstream_is_told_with_its_key_and_changes_nothing(mesh: LocalCli, directory: Path) -> None:
    file = company(directory, "broken")
    (directory / "broken.key").unlink()
    daemon = mesh.daemon_pid()
    assert "config.key_file_path" in mesh.fails("up", "--mtls-upstream-ca-conf", str(file), code=2)
    identity = directory / "identity.yaml"
    identity.write_text("mtls: {upstreamAuthority: broken.yaml}\n")
    assert "config.key_file_path" in mesh.fails("up", "--identity-config", str(identity))
    identity.write_text("mtls: {svidTTL: 2h}\nidentity: {nonsense: 1}\n")
    assert f"--identity-config: {identity}: identity.nonsense" in mesh.fails("up", "--identity-config", str(identity))
    identity.write_text("mtls: {svidTTL: 2h}\n")
    said = mesh.fails("up", "--identity-config", str(identity), "--mtls-svid-ttl", "30m")
    assert f"--mtls-svid-ttl contradicts mtls.svidTTL in {identity}" in said
    identity.write_text("mtls: {trustDomain: other.example}\n")
    assert "trust_domain" in mesh.fails("up", "--identity-config", str(identity))
    assert mesh.daemon_pid() == daemon


def test_a_daemon_that_does_not_start_with_new_settings_starts_with_the_old(mesh: LocalCli, directory: Path) -> None:
    identity = directory / "identity.yaml"
    nowhere = {"database_type": "postgres", "connection_string": "postgresql://nobody:secret-word@127.0.0.1:1/x"}
    identity.write_text(yaml.safe_dump({"identity": {"datastore": nowhere}}))
    said = mesh.fails("up", "--identity-config", str(identity))
    assert "does not start" in said
    assert said.endswith("the settings of the mesh are as they were\n")
    assert "secret-word" not in said
    assert "secret-word" not in mesh.daemon_log()
    assert "sqlite3" in ok(mesh, "show")
    assert not mesh.paths.identity_file.exists()


def test_the_configuration_of_identity_is_kept_privately_and_changes_a_mesh_in_place(
    mesh: LocalCli, directory: Path
) -> None:
    identity = directory / "identity.yaml"
    config = {
        "mtls": {"svidTTL": "2h", "spireServerKeyManager": "memory"},
        "identity": {"serverID": "first", "bundlePath": "newest.pem"},
    }
    identity.write_text(yaml.safe_dump(config))
    mesh.ok("up", "--identity-config", str(identity))
    head = ok(mesh, "show")
    assert re.search(r"^Server: +first$", head, re.MULTILINE)
    assert re.search(r"^Key manager: +memory$", head, re.MULTILINE)
    assert re.search(r"^SVIDs live: +120m$", head, re.MULTILINE)
    for path in (mesh.paths.identity_file, mesh.paths.state / "settings.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    mesh.wait(lambda: (directory / "newest.pem").exists())
    assert x509.load_pem_x509_certificates((directory / "newest.pem").read_bytes())
    daemon = mesh.daemon_pid()
    mesh.ok("up", "--identity-config", str(identity))
    assert mesh.daemon_pid() == daemon
    mesh.ok("up", "--persistent-storage", "off", "--spire-server-key-manager", "disk")
    assert re.search(r"^Datastore: .*memory", ok(mesh, "show"), re.MULTILINE)
    assert re.search(r"^Server: +first$", ok(mesh, "show"), re.MULTILINE)
    mesh.ok("up", "--persistent-storage", "auto")
    mesh.wait_ready()


def test_a_mesh_whose_authority_is_a_process_shows_what_its_agent_holds(mesh: LocalCli, directory: Path) -> None:
    socket, admin = directory / "agents.sock", directory / "admin.sock"
    server = {
        "mtls": {"trustDomain": "example.org"},
        "identity": {
            "dataDir": "data",
            "listen": f"unix:{socket}",
            "adminSocket": "admin.sock",
            "bundlePath": "bundle.pem",
        },
    }
    (directory / "server.yaml").write_text(yaml.safe_dump(server))
    remote = {"address": f"unix:{socket}", "trustBundle": "bundle.pem", "joinTokenFile": "token"}
    (directory / "mesh.yaml").write_text(yaml.safe_dump({"identity": {"provider": "server", "server": remote}}))
    command = [sys.executable, "-c", "from nginx_mesh.identity.process import main; main()", "-c"]
    process = subprocess.Popen([*command, str(directory / "server.yaml")], stderr=subprocess.DEVNULL)
    try:
        mesh.wait(lambda: admin.exists() and (directory / "bundle.pem").exists())
        where = ("--socket", str(admin))
        assert "No workloads are registered." in ok(mesh, "show", *where)
        ok(mesh, "token", "create", "node", "--registrar", "-o", str(directory / "token"), *where)
        with LocalCli() as other:
            other.ok("up", "-f", "-", "--identity-config", str(directory / "mesh.yaml"), stdin=APP.encode())
            text = ok(other, "show")
            assert re.search(rf"^Authority: +unix:{socket}$", text, re.MULTILINE)
            assert text.count(WEB_ID) == 2
            assert ok(mesh, "show", *where).count(WEB_ID) == 2
            assert f"unix:{socket}: ask there, with --socket PATH" in refused(other, "rotate-ca")
            assert re.search(r"^node +join_token +yes .* Attested$", ok(mesh, "agent", "list", *where), re.MULTILINE)
            ok(mesh, "agent", "ban", "node", *where)
            assert ok(mesh, "agent", "list", *where).rstrip().endswith("Banned")
            ok(mesh, "agent", "unban", "node", *where)
            ok(mesh, "agent", "evict", "node", *where)
            assert ok(mesh, "agent", "list", *where) == ""
    finally:
        process.terminate()
        process.wait()
    assert "no identity server answers at" in refused(mesh, "show", *where)


def test_who_is_not_root_is_told_so(mesh: LocalCli) -> None:
    command = [*MESHCTL, "identity", "show"]
    nobody = 65534
    if not os.access(sys.executable, os.X_OK):
        pytest.skip("the interpreter is root's own")
    result = subprocess.run(command, env=mesh.env, capture_output=True, text=True, check=False, user=nobody, cwd="/")
    assert result.returncode == 1
    assert result.stderr.startswith("error: local meshes need root")
