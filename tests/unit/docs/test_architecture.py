"""The map of the code names what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "docs/architecture.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs/architecture").glob("*.md")])
_NAMED = re.compile(r"`((?:[\w-]+/)*[\w*-]+(?:\.(?:py|c|h|lua|js|conf)|/))`")


def tracked() -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {f"/{path}" for path in listed} | {f"/{parent}/" for path in listed for parent in Path(path).parents}


def missing(text: str, there: set[str]) -> list[str]:
    """The files and directories that a page names, by the end of their path, and that are not there."""
    named = sorted(name for name in set(_NAMED.findall(text)) if "*" not in name)
    return [name for name in named if not any(path.endswith(f"/{name}") for path in there)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    assert missing(page.read_text(), tracked()) == []


def test_a_file_that_is_not_there_is_found() -> None:
    assert missing("see `compile/force.py`, `lb.c` and `nowhere/`", {"/src/module/lb.c"}) == [
        "compile/force.py",
        "nowhere/",
    ]


def test_the_map_stays_short_enough_to_read() -> None:
    assert len((ROOT / "docs/architecture.md").read_text().splitlines()) <= 250
