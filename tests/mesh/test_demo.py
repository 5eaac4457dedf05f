"""`make demo` shows what it promises, and cleans up after itself whenever it is interrupted."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from nginx_mesh.cli.local import daemon
from nginx_mesh.cli.local.mesh import LocalMesh
from nginx_mesh.local.net import netns
from nginx_mesh.local.paths import MeshPaths
from nginx_mesh.sidecar.image import ensure_image

pytestmark = pytest.mark.mesh

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo.py"


class Demo:
    """A run of the demo in a mesh of its own."""

    def __init__(self, root: Path) -> None:
        self.paths = MeshPaths(f"d{secrets.token_hex(4)}", root)
        self._root = root

    def start(self, **env: str) -> subprocess.Popen[str]:
        """Start it, as make does."""
        return subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            env={**os.environ, "NGINX_MESH_ROOT": str(self._root), "DEMO_NAME": self.paths.name, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def leftovers(self) -> list[str]:
        """What there is of it: network namespaces, processes, mounts, files."""
        name = self.paths.name
        processes = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if name in _read(path)]
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
        namespaces = [entry for entry in netns.names() if name in entry]
        files = [path for path in self._root.rglob(name) if path.exists()]
        return [str(entry) for entry in (*namespaces, *processes, *mounts, *files)]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    ensure_image(lambda line: None)  # is not what is timed here
    root = tmp_path_factory.mktemp("demo")
    run = Demo(root)
    try:
        yield run
    finally:
        if LocalMesh(run.paths).exists():
            daemon.destroy(LocalMesh(run.paths))
        shutil.rmtree(root, ignore_errors=True)


def test_all_that_it_shows_holds_and_it_leaves_nothing_behind(demo: Demo) -> None:
    process = demo.start()
    output, _ = process.communicate(timeout=150)

    assert process.returncode == 0, output
    assert "All of it held" in output
    assert "spiffe://example.org/ns/data/sa/inventory" in output
    assert demo.leftovers() == []


# Before the mesh has a daemon, while pods start, while traffic runs.
@pytest.mark.parametrize("seconds", [0.5, 1.2, 8])
def test_an_interrupted_run_leaves_nothing_behind(demo: Demo, seconds: float) -> None:
    process = demo.start()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)  # impatience does not disturb the cleaning
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 130, output
    assert demo.leftovers() == []


def test_keep_leaves_it_running_and_another_run_leaves_it_alone(demo: Demo) -> None:
    process = demo.start(KEEP="1")
    output, _ = process.communicate(timeout=150)

    assert process.returncode == 0, output
    assert f"down --name {demo.paths.name}" in output
    (url,) = re.findall(r"dashboard of mesh .*: (http://127\.0\.0\.1:\d+/)", output)
    with urllib.request.urlopen(f"{url}api/graph", timeout=10) as answer:  # noqa: S310 - the demo's own
        assert json.load(answer)["mesh"] == demo.paths.name

    process = demo.start()
    output, _ = process.communicate(timeout=150)

    assert process.returncode == 1, output
    assert f'there is a mesh named "{demo.paths.name}" already' in output
    assert LocalMesh(demo.paths).api().get("/mesh/readiness")["ready"] == 10
    daemon.destroy(LocalMesh(demo.paths))
    assert demo.leftovers() == []
