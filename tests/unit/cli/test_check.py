from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from nginx_mesh.cli.main import run

EXAMPLES = Path(__file__).parents[3] / "docs/guides/examples"
ROUTE = "apiVersion: specs.smi-spec.io/v1alpha3\nkind: TCPRoute\nmetadata: {name: r}\n"
UNSPLIT = (
    "apiVersion: split.smi-spec.io/v1alpha3\nkind: TrafficSplit\nmetadata: {name: s}\n"
    "spec: {service: web, backends: [{service: api, weight: 0}]}\n"
)


def file(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "arguments", "code"),
    [
        (ROUTE, [], 0),
        (ROUTE, ["--strict"], 0),
        (UNSPLIT, [], 0),
        (UNSPLIT, ["--strict"], 1),
        (UNSPLIT, ["--strict", "--ignore", "NM0401"], 0),
        (UNSPLIT.replace("weight: 0", "weight: -1"), [], 1),
        ("kind: [", [], 1),
    ],
)
def test_the_exit_code_says_how_bad_it_is(tmp_path: Path, text: str, arguments: list[str], code: int) -> None:
    assert run(["check", "-f", file(tmp_path / "a.yaml", text), *arguments]) == code


def test_what_cannot_be_read_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "-f", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    assert run(["check"]) == 2
    assert run(["check", "-f", file(tmp_path / "a.yaml", ROUTE), "--ignore", "NM9999"]) == 2


def test_directories_and_stdin_are_judged_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file(tmp_path / "a.yaml", ROUTE)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROUTE.encode())))
    assert run(["check", "-f", str(tmp_path), "-f", "-"]) == 1
    out = capsys.readouterr().out
    assert "error [NM0004] stdin document 1: TCPRoute default/r: metadata.name: the same object is in" in out


def test_json_has_every_part_of_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = file(tmp_path / "a.yaml", ROUTE)
    assert run(["check", "-f", name, "-o", "json", "-n", "shop"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {one["code"]: (one["object"], one["field"], one["severity"], one["file"]) for one in findings} == {
        "NM0005": ("TCPRoute shop/r", "metadata.namespace", "warning", name),
        "NM0204": ("TCPRoute shop/r", "", "info", name),
    }
    assert all(one["message"] and one["remedy"] and one["document"] == 1 for one in findings)


def test_what_a_manifest_says_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["check", "-f", file(tmp_path / "a.yaml", 'apiVersion: v1\nkind: "\\e[31mred"\nmetadata: {name: a}\n')])
    assert "\x1b" not in capsys.readouterr().out


def test_examples_of_the_guides_have_no_mistakes_but_those_meant(capsys: pytest.CaptureFixture[str]) -> None:
    for example in sorted(EXAMPLES.glob("*.yaml")):
        code = run(["check", "-f", str(example), "-o", "json"])
        findings = json.loads(capsys.readouterr().out)["findings"]
        if example.name == "mistakes.yaml":
            assert (code, {one["severity"] for one in findings}) == (1, {"error", "warning", "info"})
        elif example.name not in ("vault.yaml", "nobody.yaml"):
            assert [one for one in findings if one["severity"] != "info"] == [], example
