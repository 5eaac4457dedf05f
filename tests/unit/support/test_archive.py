"""The tarball of a support package."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from nginx_mesh.support.archive import Archive
from nginx_mesh.support.redaction import Scrubber


def test_entries_are_scrubbed_and_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "package.tar.gz"
    with Archive(path, "package") as archive:
        archive.scrubber = Scrubber(["hunter2-hunter2"])
        archive.text("app.log", b"hunter2-hunter2 \xff\xfe")
        archive.document("pod.json", {"env": [{"name": "A", "value": "x"}], "name": "hunter2-hunter2"})
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as found:
        assert found.getnames() == ["package/app.log", "package/pod.json"]
        texts = [member.read().decode() for name in found.getnames() if (member := found.extractfile(name))]
    assert texts[0] == "<redacted> \ufffd\ufffd"
    assert '"value": "<redacted>"' in texts[1]
    assert "hunter2" not in "".join(texts)


def test_a_file_that_exists_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "package.tar.gz"
    path.write_text("mine")
    with pytest.raises(FileExistsError), Archive(path, "package"):
        pass
    assert path.read_text() == "mine"


def test_a_package_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "package.tar.gz"
    with pytest.raises(KeyboardInterrupt), Archive(path, "package") as archive:
        archive.text("a", "b")
        raise KeyboardInterrupt
    assert not path.exists()
