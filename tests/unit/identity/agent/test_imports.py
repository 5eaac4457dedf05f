"""A node's agent is small: it loads nothing of the identity server, nor a library that only a server needs."""

import subprocess
import sys
from pathlib import Path

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


def test_an_agent_loads_no_server_and_no_library_of_one() -> None:
    modules = modules_in("agent")
    assert {f"{PACKAGE}.agent.{name}" for name in ("agent", "remote", "setup", "spire.provider")} <= set(modules)
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert f"{PACKAGE}.agent.workloadapi.server" in loaded
    assert {name for name in loaded if name.split(".")[0] in SERVER_ONLY} == set()
    assert {name for name in loaded if f"{name}.".startswith(f"{PACKAGE}.server.")} == set()
