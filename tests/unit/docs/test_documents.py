"""Documents are consistent: links have targets, generated parts are up to date, and everything named exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nginx_mesh.api import annotations as mesh
from nginx_mesh.cli.main import cli
from scripts import reference

ROOT = Path(__file__).parents[3]
SIDECAR = ROOT / "src/nginx_mesh/sidecar"
DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
BY_NAME = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_COMMAND = re.compile(r"\bnginx-meshctl((?: [a-z][a-z0-9]*(?:-[a-z]+)*)*)(.*)")
_FLAG = re.compile(r"(?:^|\s)(--?[a-z][a-z-]*)")


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return _FENCED.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    """What links into a document may name, as forges make it of headings."""
    headings = _HEADING.findall(prose(path))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=BY_NAME)
def test_link_targets_exist(document: Path) -> None:
    for link in _LINK.findall(prose(document)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} names no heading"


def test_every_document_is_reachable_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        if document in seen or document.suffix != ".md":
            continue
        seen.add(document)
        links = (link.partition("#")[0] for link in _LINK.findall(prose(document)) if "://" not in link)
        waiting += [(document.parent / link).resolve() for link in links if link]
    assert set(DOCUMENTS) <= seen


def test_the_generated_reference_is_up_to_date() -> None:
    assert reference.stale() == {}, "run scripts/reference.py"


def test_every_label_and_annotation_is_in_the_reference() -> None:
    documented = {*reference.LABELS, *reference.ANNOTATIONS, *reference.SET_BY_INJECTION}
    keys = {value for name, value in vars(mesh).items() if name.isupper() and isinstance(value, str) and "/" in value}
    assert {key for key in keys - documented if key != mesh.OWNER_PREFIX} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=BY_NAME)
def test_commands_and_flags_exist(document: Path) -> None:
    commands = reference.commands()
    for line in document.read_text().splitlines():
        for call in re.split(r"\||<\(|; | - <", line):
            found = _COMMAND.search(call)
            if found is None:
                continue
            words = ["nginx-meshctl"]
            rest = found[1].split()
            while rest and " ".join([*words, rest[0]]) in commands:
                words.append(rest.pop(0))
            command = commands[" ".join(words)]
            assert not (rest and isinstance(command, click.Group)), f"{line.strip()}: there is no such command"
            own = found[0].split(" -- ")[0].split("`")[0]
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            known |= {"--help", "-h", "-it"}
            assert set(_FLAG.findall(own)) <= known, f"{line.strip()}: {' '.join(words)} has no such flag"


def test_every_command_shows_help() -> None:
    for name in reference.commands():
        result = CliRunner().invoke(cli, [*name.split()[1:], "--help"])
        assert result.exit_code == 0, name


def test_every_refusal_is_explained() -> None:
    text = " ".join((ROOT / "docs/guides/troubleshooting.md").read_text().split())
    lua = "\n".join(path.read_text() for path in sorted((SIDECAR / "lua/mesh").glob("*.lua")))
    c = "\n".join(path.read_text() for path in sorted((SIDECAR / "module").glob("*.c")))
    refusals = re.findall(r'\b(?:deny\(|return |\{ )\d{3}, "([^"]+)"', lua)
    refusals += re.findall(r'_mesh_refuse\(s, mc, "([^"]+)"', c)
    assert len(refusals) > 15
    for refusal in refusals:
        # A message that goes on with a value ends with a space.
        assert refusal.strip() in text, refusal


@pytest.mark.parametrize("number", range(2))
def test_every_field_of_the_json_access_log_is_explained(number: int) -> None:
    text = (ROOT / "docs/reference/access-log.md").read_text()
    formats = [line for line in reference.log_formats().splitlines() if line.startswith("{")]
    assert len(formats) == 2
    for name in json.loads(formats[number]):
        assert f"`{name}`" in text.partition("## Fields")[2], name
