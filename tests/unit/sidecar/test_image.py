"""What the sidecar image takes from a clone, whoever made that, and what it leaves of builds that were cut off."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nginx_mesh.sidecar import image


@pytest.fixture
def strict_umask() -> Iterator[None]:
    old = os.umask(0o077)
    yield
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree_with_accounts(path: Path) -> Path:
    (path / "etc").mkdir(parents=True)
    for name in ("passwd", "group"):
        (path / "etc" / name).touch()
    return path


@pytest.mark.usefixtures("strict_umask")
def test_files_of_a_private_clone_can_be_read_by_the_sidecars_user(tmp_path: Path) -> None:
    module = tmp_path / image.MODULE
    module.write_bytes(b"")
    with image._umask(0o022):
        tree = tree_with_accounts(tmp_path / "tree")
        image._install(tree, module)
    assert mode(module) == 0o600
    assert mode(tree / "usr/lib/nginx/modules" / image.MODULE) == 0o644
    assert mode(tree / "etc/nginx-mesh/nginx.conf") == 0o644
    assert mode(tree / "usr/lib/nginx-mesh/sidecar") == 0o755
    assert {mode(path) for path in tree.rglob("*") if path.is_dir()} == {0o755}


@pytest.mark.usefixtures("strict_umask")
def test_the_image_gets_no_other_name_from_a_private_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_HERE", tmp_path)
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    public = image._digest((script,))
    script.chmod(0o700)
    assert image._digest((script,)) == public
    script.chmod(0o600)
    assert image._digest((script,)) != public


def test_what_a_killed_build_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("base-1", "builder-1/usr/build-essential", "module-1", "sidecar-1")]
    for path in (*kept, tmp_path / ".building-x/usr", tmp_path / "builder-1/build-x/nginx"):
        path.mkdir(parents=True)
    image._sweep(tmp_path)
    assert all(path.is_dir() for path in kept)
    assert not (tmp_path / ".building-x").exists()
    assert not (tmp_path / "builder-1/build-x").exists()
