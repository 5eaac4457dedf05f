from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from nginx_mesh.api.errors import FieldError
from nginx_mesh.cli.local import commands as local
from nginx_mesh.cli.main import COMMANDS, parse_timeout, run
from nginx_mesh.version import version


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_group_says_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)
    assert run([name, "--help"]) == 0
    assert f"Usage: nginx-meshctl {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", local.COMMANDS)
def test_the_list_of_local_commands_has_the_first_sentence_of_each_commands_help(name: str) -> None:
    command = local.local.get_command(click.Context(local.local), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=1000) == local.COMMANDS[name][1]


def test_a_local_command_imports_only_what_it_needs() -> None:
    code = (
        "import sys; from nginx_mesh.cli.main import run; assert run(['local', 'get', '--help']) == 0;"
        "print([name for name in ('yaml', 'asyncio', 'nginx_mesh.cli.settings_flags') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands_with_examples(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    assert "nginx-meshctl local up -f app.yaml" in out


def test_help_imports_nothing_that_takes_time() -> None:
    code = (
        "import sys; from nginx_mesh.cli.main import run; assert run(['--help']) == 0;"
        "slow = ('aiohttp', 'asyncio', 'cryptography', 'msgspec', 'pyroute2', 'rich', 'yaml');"
        "print([name for name in slow if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["--frobnicate"], ["-t", "soon", "version"], ["inject", "--ignore-incoming-ports", "http"]],
)
def test_wrong_usage_exits_with_2_and_says_so_on_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\nerror: " in captured.err


def test_version_without_a_mesh_is_that_of_the_client(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NGINX_MESH_ROOT", "/nonexistent")
    assert run(["version"]) == 0
    assert capsys.readouterr().out == f"nginx-meshctl - v{version()}\n"


@pytest.mark.parametrize(("shell", "word"), [("zsh", "compdef"), ("fish", "complete"), ("bash", "complete")])
def test_completion_scripts_name_the_command(shell: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert word in out
    assert "nginx-meshctl" in out


def test_completion_answers_the_script() -> None:
    code = "from nginx_mesh.cli.main import main; main()"
    environment = {"_NGINX_MESHCTL_COMPLETE": "bash_complete", "COMP_WORDS": "nginx-meshctl ver", "COMP_CWORD": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.stdout == "plain,version\n"


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("1m30s", 90), ("2h", 7200), ("0.5s", 0.5)])
def test_timeouts_are_durations(text: str, seconds: float) -> None:
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "-1s", "1d", "1s1m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(FieldError):
        parse_timeout(text)
