"""What the guides tell people to type works, and prints what they say it prints.

A block of the guides that is to be run stands after `<!-- test -->`. In it, `$ ` begins a command; the lines up to the
next one are what it prints, `...` standing for anything. A command without such lines only has to succeed. One whose
expected output begins with `error:` or `Error from server` has to fail. One that ends with `&` goes on until the guide
does. Commands of one guide run one after the other, from the project's directory, in meshes whose names and files are
this run's own.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from nginx_mesh.local.net import netns

from .localcli import CTL

pytestmark = pytest.mark.mesh

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^<!-- test -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is still on its way may be asked for again. Other commands are run once.
_ASKING = re.compile(r"nginx-meshctl (local (exec|get|describe|logs|list)|explain|services|status|top)\b")
_PATIENCE = 30.0

# Gives `nginx-meshctl local`, and the other commands that ask a mesh, a mesh name with this run's prefix.
_WRAPPER = """#!{python}
import sys
from nginx_mesh.cli.main import main
words, prefix = sys.argv, "{prefix}"
if words[1:2] == ["local"] and words[2:3] not in (["list"], ["--help"]):
    if words[2] in ("connect", "disconnect"):
        words[3:] = [prefix + name for name in words[3:]]
    elif "--name" in words:
        words[words.index("--name") + 1] = prefix + words[words.index("--name") + 1]
    else:
        words[3:3] = ["--name", prefix + "local"]
named = ("config", "dashboard", "explain", "identity", "services", "status", "supportpkg", "tap", "top", "version")
if words[1:2] and words[1] in named and "--prometheus" not in words:
    words += ["--mesh", prefix + "local"]
main()
"""


class Step(NamedTuple):
    """A command of a guide, and what it prints."""

    command: str
    expected: str


def steps(text: str) -> list[Step]:
    """The commands of a guide that are to be run, in order."""
    found: list[Step] = []
    for block in _BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:], ""))
            else:
                found[-1] = Step(found[-1].command, f"{found[-1].expected}{line}\n")
    return found


def matches(expected: str, printed: str) -> bool:
    """Whether output is as expected: white space counts as one space, `...` as anything."""
    words = " ".join(expected.split())
    pattern = ".*".join(re.escape(part.strip()) for part in words.split("..."))
    return re.fullmatch(pattern, " ".join(printed.split())) is not None


GUIDES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if steps(path.read_text())]


class Shell:
    """Where a guide's commands run."""

    def __init__(self) -> None:
        self._prefix = f"d{secrets.token_hex(3)}-"
        self._root = Path(tempfile.mkdtemp(prefix="nsm-", dir="/tmp"))
        commands = self._root / "bin"
        commands.mkdir()
        wrapper = commands / "nginx-meshctl"
        wrapper.write_text(_WRAPPER.format(python=sys.executable, prefix=self._prefix))
        wrapper.chmod(0o755)
        path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._behind: list[subprocess.Popen[str]] = []
        self._env = {**os.environ, "NGINX_MESH_ROOT": str(self._root), "PATH": path, "TMPDIR": str(self._root)}

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command line; names of meshes are in it and in its output as the guides have them."""
        # A guide that looks for a mesh's files finds those of this run.
        command = command.replace("/run/nginx-mesh/", f"/run/nginx-mesh/{self._prefix}")
        command = command.replace("> /tmp/", f"> {self._root}/")
        argv = ["bash", "-o", "pipefail", "-c", command]
        if command.endswith("&"):
            # In a process group of its own, which outlives the shell.
            self._behind.append(subprocess.Popen(argv, text=True, cwd=ROOT, env=self._env, start_new_session=True))
            return subprocess.CompletedProcess(command, self._behind[-1].wait(), "", "")
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, env=self._env, timeout=150)
        out, err = (text.replace(self._prefix, "") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(command, done.returncode, out, err)

    def close(self) -> None:
        """Leave nothing behind."""
        for shell in self._behind:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        done = subprocess.run(
            [*CTL, "down", "--all"],
            env=self._env,
            check=False,
            capture_output=True,
            text=True,
        )
        shutil.rmtree(self._root, ignore_errors=True)
        assert done.returncode == 0, done.stderr
        assert not [name for name in netns.names() if self._prefix in name]


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell()
    try:
        yield shell
    finally:
        shell.close()


@pytest.fixture
def ports_of_guides() -> Iterator[None]:
    """The ports of the machine that guides name: test runs on it take turns with them."""
    lock = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_a_guide_does_what_it_says(request: pytest.FixtureRequest, shell: Shell, guide: Path) -> None:
    if "$ prometheus " in guide.read_text():
        request.getfixturevalue("ports_of_guides")
    for step in steps(guide.read_text()):
        deadline = time.monotonic() + _PATIENCE
        while (problem := _problem(shell, step)) is not None:
            if not _ASKING.search(step.command) or time.monotonic() > deadline:
                pytest.fail(f"{guide.relative_to(ROOT)}: $ {step.command}\n{problem}")
            time.sleep(0.3)


def _problem(shell: Shell, step: Step) -> str | None:
    """What is not as the guide says."""
    done = shell.run(step.command)
    fails = step.expected.startswith(("error:", "Error from server"))
    if (done.returncode != 0) != fails:
        return f"exit code {done.returncode}:\n{done.stdout}{done.stderr}"
    printed = done.stderr if fails else done.stdout
    if step.expected and not matches(step.expected, printed):
        return f"expected:\n{step.expected}\nprinted:\n{printed}"
    return None
