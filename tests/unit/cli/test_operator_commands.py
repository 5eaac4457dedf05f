"""The commands of operators, from the command line to a real server at the socket of a local mesh's daemon."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.cli.local.mesh import LocalMesh
from nginx_mesh.cli.main import run
from nginx_mesh.local.pidlock import held

from .unixserver import HttpServer, Refused, sending

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local meshes need root")


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the meshes of a test are; short, as the paths of sockets have to be."""
    directory = Path(tempfile.mkdtemp(prefix="nsm-", dir="/tmp"))
    monkeypatch.setenv("NGINX_MESH_ROOT", str(directory))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def mesh(root: Path) -> LocalMesh:
    """A mesh that exists, without a daemon."""
    found = LocalMesh.named("shop")
    found.paths.make()
    found.settings_file.write_bytes(msgspec.json.encode(MeshSettings()))
    return found


@contextmanager
def daemon(mesh: LocalMesh, answers: dict[str, Any]) -> Iterator[HttpServer]:
    """The daemon of a mesh as far as commands see it: its lock, and a server at its socket."""
    with held(mesh.daemon_lock), HttpServer(answers).listening(mesh.api_socket) as server:
        yield server


COMMANDS = [
    ["config"],
    ["explain", "--from", "web", "--to", "api"],
    ["identity", "show"],
    ["services"],
    ["tap", "web"],
    ["top"],
]


@pytest.mark.parametrize("command", [*COMMANDS, ["status"], ["supportpkg"], ["dashboard"]])
def test_a_mesh_that_is_not_there_is_an_error_that_says_how_to_start_it(
    command: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--mesh", "shop"]) == 1
    said = 'error: there is no mesh named "shop": start it with `nginx-meshctl local up`\n'
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mesh_without_a_daemon_is_an_error_that_says_how_to_start_it(
    command: list[str], mesh: LocalMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--mesh", "shop"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.partition(" (")[0]) == ("", 'error: mesh "shop" has no daemon')


@pytest.mark.parametrize("command", COMMANDS)
def test_a_daemon_that_is_gone_is_an_error(
    command: list[str], mesh: LocalMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(mesh.daemon_lock):
        assert run([*command, "--mesh", "shop"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.partition(": [")[0]) == ("", "error: the daemon of the mesh does not answer")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_refusal_is_an_error_as_kubectl_words_it(
    command: list[str], mesh: LocalMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return Refused(404, json.dumps({"message": 'pods "web" not found', "reason": "NotFound"}).encode())

    with daemon(mesh, {}) as server:
        server.answers = Refusing()
        assert run([*command, "--mesh", "shop"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", 'Error from server (NotFound): pods "web" not found\n')


@pytest.mark.parametrize("name", ["Shop", "-", "a" * 41])
def test_what_cannot_be_a_name_of_a_mesh_is_wrong_usage(
    name: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "--mesh", name]) == 2
    assert f"Invalid value for '--mesh': mesh name '{name}'" in capsys.readouterr().err


def test_services_are_a_table_or_everything(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    service = {"namespace": "shop", "name": "web", "ports": [{"port": 80, "protocol": "http"}], "upstreams": []}
    with daemon(mesh, {"GET /mesh/services": [service]}) as server:
        assert run(["services", "--mesh", "shop", "-n", "shop"]) == 0
        assert run(["services", "--mesh", "shop", "-o", "json"]) == 0
    table, _, document = capsys.readouterr().out.partition("80\n")
    assert table.split() == ["Service", "Upstream", "Port", "shop/web", "<none>"]
    assert json.loads(document) == [service]
    assert [path for _, path, _ in server.requests] == ["/mesh/services?namespace=shop", "/mesh/services"]


def test_config_prints_the_settings(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(mesh, {"GET /mesh/config": {"mtls": {"mode": "strict"}}}):
        assert run(["config", "--mesh", "shop"]) == 0
        assert run(["config", "--mesh", "shop", "-o", "yaml"]) == 0
    assert capsys.readouterr().out == '{\n  "mtls": {\n    "mode": "strict"\n  }\n}\nmtls:\n  mode: strict\n'


def test_version_prints_what_it_can_find_out(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(mesh, {"GET /mesh/version": {"nginx-mesh": "7.8.9"}}):
        assert run(["version", "--mesh", "shop"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["nginx-mesh - v7.8.9"]
    assert run(["version", "--mesh", "shop"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("nginx-meshctl - v")
    assert 'Unable to get versions for remaining components: mesh "shop" has no daemon' in captured.err


def test_status_of_a_daemon_that_does_not_run_or_answer_is_a_problem_of_the_mesh(
    mesh: LocalMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "--mesh", "shop"]) == 1
    assert "daemon: does not run (its pods go on): start it again" in capsys.readouterr().out
    with held(mesh.daemon_lock), sending(mesh.api_socket, _stay_silent):
        assert run(["-t", "0.2s", "status", "--mesh", "shop", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "well": False,
        "mesh": "shop",
        "problems": [
            {"about": "daemon", "message": f"does not answer (timed out); its log is {mesh.daemon_log}"},
        ],
        "warnings": [],
    }


def test_status_waits_until_the_mesh_is_well(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    class Recovering(dict[str, Any]):
        asked = 0

        def get(self, key: str, default: Any = None) -> Any:
            self.asked += 1
            return {"well": self.asked > 1, "mesh": "shop", "problems": [], "warnings": []}

    with daemon(mesh, {}) as server:
        server.answers = Recovering()
        assert run(["status", "--mesh", "shop", "--wait"]) == 0
    assert capsys.readouterr().out == 'mesh "shop" is well\n'
    assert len(server.requests) == 2


def test_tap_ends_after_as_many_requests_as_it_was_told(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    lines = b'{"skipped": 3}\n{"path": "/a"}\n{"path": "/b"}\n{"path": "/c"}\n'
    with daemon(mesh, {"GET /mesh/tap": lines}):
        assert run(["tap", "web", "--mesh", "shop", "-o", "json", "--limit", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == '{"path": "/a"}\n{"path": "/b"}\n'
    assert captured.err == "(3 more were not shown: --max-rps)\n"


def test_a_header_of_explain_without_a_name_is_wrong_usage(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "--from", "web", "--to", "api", "--mesh", "shop", "--header", ": x"]) == 2
    assert '": x" is not NAME: VALUE' in capsys.readouterr().err


def test_top_says_when_there_is_no_traffic(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    path = "/apis/metrics.smi-spec.io/v1alpha1/namespaces/default/deployments"
    with daemon(mesh, {f"GET {path}": {"items": []}}):
        assert run(["top", "--mesh", "shop"]) == 0
    assert capsys.readouterr().out == "No traffic in the last 30 seconds.\n"


def test_identity_of_a_mesh_is_asked_of_its_control_plane(mesh: LocalMesh, capsys: pytest.CaptureFixture[str]) -> None:
    provider = {"provider": "server", "address": "identity:8081", "trust_domain": "example.org"}
    with daemon(mesh, {"GET /mesh/identity": provider, "GET /mesh/identities": []}):
        assert run(["identity", "show", "--mesh", "shop", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"authority": None, "provider": provider, "identities": []}


def test_a_dashboard_that_the_mesh_has_is_not_started_again(
    mesh: LocalMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(mesh.paths.dashboard_lock):
        assert run(["dashboard", "--mesh", "shop"]) == 1
        mesh.paths.dashboard_url.write_text("http://127.0.0.1:8650/")
        assert run(["dashboard", "--mesh", "shop", "--detach"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        'error: mesh "shop" has a dashboard already: it is just starting or ending',
        'error: mesh "shop" has a dashboard already: http://127.0.0.1:8650/',
    ]
    assert run(["dashboard", "--mesh", "shop", "--stop"]) == 1
    assert capsys.readouterr().err == 'error: mesh "shop" has no dashboard\n'


def _stay_silent(connection: socket.socket) -> None:
    connection.recv(1)  # until the other side closes
