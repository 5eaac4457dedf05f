"""What a control plane tells for a support package, also when it does not tell everything."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nginx_mesh.cli.control_plane import SUPPORT_DOCUMENTS, ControlPlane
from nginx_mesh.cli.support_facts import collect_control_plane_facts
from nginx_mesh.cli.unix_http import UnixHttpClient
from nginx_mesh.support.archive import Archive

from .unixserver import HttpServer, Refused

DOCUMENTS = {f"GET {path}": {"path": path} for path in SUPPORT_DOCUMENTS.values()}
STREAMS = {
    "GET /metrics": b"up 1\n",
    "GET /mesh/supportpkg": b'{"name": "pods/web/state.json", "content": {"a": 1}}\n',
}


@contextmanager
def archived(path: Path) -> Iterator[tuple[Archive, dict[str, str]]]:
    """An archive, and after the block what is in it."""
    files: dict[str, str] = {}
    with Archive(path, "p") as archive:
        yield archive, files
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            files[member.name.removeprefix("p/")] = content.read().decode()


def test_documents_metrics_and_states_are_archived(tmp_path: Path) -> None:
    with (
        HttpServer({**DOCUMENTS, **STREAMS}).listening(tmp_path / "s"),
        archived(tmp_path / "p.tar.gz") as (archive, files),
    ):
        assert collect_control_plane_facts(ControlPlane(UnixHttpClient(tmp_path / "s")), archive)
        assert archive.missing == []
    assert files.keys() == {*SUPPORT_DOCUMENTS, "daemon/metrics.txt", "pods/web/state.json"}
    assert json.loads(files["daemon/status.json"]) == {"path": "/mesh/status"}
    assert files["daemon/metrics.txt"] == "up 1\n"


def test_a_refusal_is_archived_in_the_place_of_the_document(tmp_path: Path) -> None:
    answers = {**DOCUMENTS, **STREAMS, "GET /readyz": Refused(503, b'{"ready": false}')}
    with HttpServer(answers).listening(tmp_path / "s"), archived(tmp_path / "p.tar.gz") as (archive, files):
        assert collect_control_plane_facts(ControlPlane(UnixHttpClient(tmp_path / "s")), archive)
        assert archive.missing == []
    assert json.loads(files["daemon/readyz.json"]) == {"error": '{"ready": false}'}


def test_what_comes_after_the_control_plane_fell_silent_is_said_to_be_missing(tmp_path: Path) -> None:
    answers = {**DOCUMENTS, **STREAMS, "GET /mesh/services": b"no JSON"}
    with HttpServer(answers).listening(tmp_path / "s"), archived(tmp_path / "p.tar.gz") as (archive, files):
        assert not collect_control_plane_facts(ControlPlane(UnixHttpClient(tmp_path / "s")), archive)
        (missing,) = archive.missing
        assert missing.startswith("daemon /mesh/services and what follows it: ")
    assert files.keys() == {"daemon/status.json"}


def test_states_that_cannot_be_read_are_missing_and_nothing_else(tmp_path: Path) -> None:
    answers = {**DOCUMENTS, **STREAMS, "GET /mesh/supportpkg": b"no JSON\n"}
    with HttpServer(answers).listening(tmp_path / "s"), archived(tmp_path / "p.tar.gz") as (archive, files):
        assert collect_control_plane_facts(ControlPlane(UnixHttpClient(tmp_path / "s")), archive)
        (missing,) = archive.missing
        assert missing.startswith("metrics of the daemon, or states of sidecars: ")
    assert files.keys() == {*SUPPORT_DOCUMENTS, "daemon/metrics.txt"}
