"""The contracts of the layers, as `make lint` checks them, fail when a forbidden import is added."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over the package in a directory, with the project's contracts."""
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-logo",
        "--no-cache",
        str(ROOT / "pyproject.toml"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("layers")
    ignored = shutil.ignore_patterns("__pycache__", "module", "rootfs", "static")
    shutil.copytree(ROOT / "src/nginx_mesh", directory / "nginx_mesh", ignore=ignored)
    return directory


def test_the_package_as_it_is_keeps_all_contracts(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("importer", "imported", "contract"),
    [
        ("api/names.py", "nginx_mesh.identity.common.keys", "Dependencies point one way"),
        ("compile/access.py", "nginx_mesh.control.plane", "Dependencies point one way"),
        ("protocol/state.py", "nginx_mesh.catalog.changes", "Dependencies point one way"),
        ("control/plane.py", "nginx_mesh.local.api.store", "Dependencies point one way"),
        ("node/overlay.py", "nginx_mesh.control.plane", "Dependencies point one way"),
        ("overview/graph.py", "nginx_mesh.dashboard.server", "Dependencies point one way"),
        ("identity/agent/agent.py", "nginx_mesh.identity.server.ca", "Servers and agents of identity"),
        ("identity/common/keys.py", "nginx_mesh.identity.agent.agent", "Servers and agents of identity"),
        ("local/node/kubelet.py", "nginx_mesh.local.api.store", "The local mesh's API"),
        ("local/net/network.py", "nginx_mesh.local.node.kubelet", "The local mesh's API"),
        ("identity/agent/agent.py", "sqlalchemy", "A node's agent loads no database"),
        ("control/health.py", "nginx_mesh.identity.agent.agent", "The control plane knows identities"),
        ("node/workloads.py", "boto3", "A node's agent loads no database"),
        ("cli/status.py", "nginx_mesh.local.paths", "Only cli.local"),
        ("compile/engine.py", "asyncio", "What is pure"),
        ("catalog/catalog.py", "time", "What is pure"),
    ],
)
def test_a_forbidden_import_breaks_a_contract(copy: Path, importer: str, imported: str, contract: str) -> None:
    path = copy / "nginx_mesh" / importer
    text = path.read_text()
    path.write_text(
        text.replace(
            "from __future__ import annotations\n", f"from __future__ import annotations\nimport {imported}\n", 1
        )
    )
    try:
        result = lint(copy)
    finally:
        path.write_text(text)
    assert result.returncode == 1, result.stdout
    broken = [line for line in result.stdout.splitlines() if " BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), result.stdout
