"""A node's agent is small: it loads nothing of the identity server, nor a library that only a server needs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nginx_mesh.identity

IDENTITY = Path(nginx_mesh.identity.__file__).parent
PACKAGE = "nginx_mesh.identity"

SERVER_ONLY = {
    "sqlalchemy",
    "alembic",
    "psycopg",
    "pymysql",
    "boto3",
    "botocore",
    "moto",
    "hvac",
    "kubernetes",
}


def modules_in(part: str) -> list[str]:
    """The names of all modules of a part of identity."""
    files = sorted((IDENTITY / part).rglob("*.py"))
    found = [file.relative_to(IDENTITY).with_suffix("").as_posix().replace("/", ".") for file in files]
    return [f"{PACKAGE}.{name.removesuffix('.__init__')}" for name in found]


def imported_by(part: str) -> Iterator[tuple[Path, str]]:
    """Each module of identity that a part imports, also within a function, and by which file."""
    for file in (IDENTITY / part).rglob("*.py"):
        package = [*PACKAGE.split("."), *file.relative_to(IDENTITY).parent.parts]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                origin = [*base, *(node.module or "").split(".")] if node.module else base
                yield from ((file, ".".join([*origin, alias.name])) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)


def test_an_agent_loads_no_server_and_no_library_of_one() -> None:
    modules = modules_in("agent")
    assert {f"{PACKAGE}.agent.{name}" for name in ("agent", "remote", "setup", "spire.provider")} <= set(modules)
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert f"{PACKAGE}.agent.workloadapi.server" in loaded
    assert {name for name in loaded if name.split(".")[0] in SERVER_ONLY} == set()
    assert {name for name in loaded if f"{name}.".startswith(f"{PACKAGE}.server.")} == set()


@pytest.mark.parametrize(
    ("part", "above"),
    [("common", ("agent", "server")), ("agent", ("server",)), ("server", ("agent",))],
)
def test_no_part_of_identity_imports_one_above_or_beside_it(part: str, above: tuple[str, ...]) -> None:
    ours = [(file, name) for file, name in imported_by(part) if name.startswith(f"{PACKAGE}.")]
    assert len(ours) > 10
    top = {file.stem for file in IDENTITY.glob("*.py")}  # what puts agents and servers together
    wrong = [(file.name, name) for file, name in ours if name.split(".")[2] in {*above, *top}]
    assert wrong == []
