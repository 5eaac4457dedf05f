from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nginx_mesh.api.documents import read
from nginx_mesh.cli.main import run

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: app, unknown: kept}]}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"
HOST_POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: host}\nspec: {hostNetwork: true, containers: [{name: app}]}\n"


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_file_is_injected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", "-f", write(tmp_path / "app.yaml", f"{SERVICE}---\n{POD}")]) == 0
    service, pod = (document.value for document in read(capsys.readouterr().out.encode()))
    assert service["kind"] == "Service"
    assert [one["name"] for one in pod["spec"]["containers"]] == ["app", "nginx-mesh-sidecar"]
    assert pod["spec"]["containers"][0]["unknown"] == "kept"


def test_stdin_is_injected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(POD.encode())))
    assert run(["inject"]) == 0
    assert "nginx-mesh-sidecar" in capsys.readouterr().out


def test_json_stays_json_and_a_list_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pod,) = (document.value for document in read(POD.encode()))
    document = {"apiVersion": "v1", "kind": "List", "items": [pod]}
    assert run(["inject", "-f", write(tmp_path / "app.json", json.dumps(document))]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "List"
    assert len(result["items"][0]["spec"]["containers"]) == 2


def test_injecting_the_result_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["inject", "-f", write(tmp_path / "app.yaml", f"{SERVICE}---\n{POD}")])
    once = capsys.readouterr().out
    run(["inject", "-f", write(tmp_path / "injected.yaml", once)])
    assert capsys.readouterr().out == once


def test_ports_to_ignore_may_be_listed_and_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ports = ["--ignore-incoming-ports", "80,443", "--ignore-incoming-ports", "9000", "--ignore-outgoing-ports", "5432"]
    assert run(["inject", "-f", write(tmp_path / "app.yaml", POD), *ports]) == 0
    (pod,) = (document.value for document in read(capsys.readouterr().out.encode()))
    (init,) = pod["spec"]["initContainers"]
    assert init["args"] == ["--ignore-incoming-ports=80,443,9000", "--ignore-outgoing-ports=5432"]


def test_a_pod_that_is_never_injected_passes_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", "-f", write(tmp_path / "app.yaml", f"{POD}---\n{HOST_POD}")]) == 0
    captured = capsys.readouterr()
    first, second = (document.value for document in read(captured.out.encode()))
    assert len(first["spec"]["containers"]) == 2
    assert len(second["spec"]["containers"]) == 1
    assert captured.err.startswith("warning: ")
    assert "app.yaml document 2: Pod host is not injected: pods in the host's network" in captured.err


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"\xff", "document 1: is not UTF-8"),
        ("a: [", "document 1: is not YAML: line 2"),
        (f"{POD}---\njust text\n", "document 2: is not an object"),
        (f"{POD}---\n{POD.replace('name: app', 'name: 5')}", "document 2: Pod web: spec.containers[0].name: must be a"),
        (POD.replace("name: app", "name: nginx-mesh-init"), "document 1: Pod web: spec.containers[0].name"),
        (
            "kind: PodList\napiVersion: v1\nitems: [{metadata: {name: a}}]",
            "document 1: Pod a: items[0].spec: is required",
        ),
        ("kind: List\nitems: [{kind: List, items: [{kind: Pod, apiVersion: v2}]}]", "1: Pod: items[0].items[0].apiVer"),
        ("kind: List\nitems: [5]", "document 1: items[0]: is not an object"),
        ("---\na: 1\n" * 5001, "there are more than 5000 documents"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_printed(
    text: str | bytes, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inject", "-f", write(tmp_path / "app.yaml", text)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {tmp_path}/app.yaml document ")
    assert error in captured.err


def test_every_wrong_document_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", "-f", write(tmp_path / "app.yaml", "one\n---\ntwo\n")]) == 1
    assert [line.partition("app.yaml ")[2][:10] for line in capsys.readouterr().err.splitlines()] == [
        "document 1",
        "document 2",
    ]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", "-f", str(tmp_path / "nope.yaml")]) == 1
    assert capsys.readouterr().err == f"error: cannot read {tmp_path}/nope.yaml: No such file or directory\n"


def test_a_reader_that_has_had_enough_is_no_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "app.yaml", "---\n".join([POD] * 500))
    command = [sys.executable, "-c", "from nginx_mesh.cli.main import main; main()", "inject", "-f", path]
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(write_end)
    assert result.returncode == 1
    assert result.stderr == ""
