"""What the files of the C module refer to: by their includes, and by the functions and variables of other files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# Comments, strings and characters. What is in them refers to nothing.
_COMMENT = r"/\*.*?\*/"
_QUOTED = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
_SKIPPED = re.compile(f"{_COMMENT}|{_QUOTED}", re.S)
_INCLUDE = re.compile(r'^#include "(\w+)\.h"$', re.M)
# nginx's style: the name of a function begins a line, and its type stands in the line before.
_FUNCTION = re.compile(r"^([^\n]*)\n(\w+)\([^;{]*\)\n\{", re.M)
_VARIABLE = re.compile(r"^(?!static |extern |typedef |struct |#)(?:const )?\w+ +\**(\w+)(?:\[\w*\])?(?:;| =)", re.M)
_WORD = re.compile(r"\b[A-Za-z_]\w*\b")


def files(module: Path) -> list[Path]:
    """The module's sources and headers."""
    return sorted((*module.glob("*.c"), *module.glob("*.h")))


def code(path: Path) -> str:
    """The text of a file without comments and without what is quoted."""
    return _SKIPPED.sub(" ", path.read_text())


def includes(module: Path) -> Iterator[tuple[str, str]]:
    """Pairs of a file and another one whose header it includes, both without the ending of their names."""
    for path in files(module):
        for included in _INCLUDE.findall(re.sub(_COMMENT, " ", path.read_text(), flags=re.S)):
            if included != path.stem:
                yield path.stem, included


def definitions(module: Path) -> dict[str, str]:
    """The functions and variables with external linkage, each with the file that defines it."""
    found: dict[str, str] = {}
    for path in sorted(module.glob("*.c")):
        text = code(path)
        names = [name for before, name in _FUNCTION.findall(text) if not before.startswith("static")]
        for name in (*names, *_VARIABLE.findall(text)):
            assert name not in found, f"{name} is defined in {found[name]}.c and {path.name}"
            found[name] = path.stem
    return found


def symbols(module: Path) -> Iterator[tuple[str, str, str]]:
    """A file, another one that it refers to, and the symbol of that other one."""
    defined = definitions(module)
    for path in sorted(module.glob("*.c")):
        for word in sorted(set(_WORD.findall(code(path)))):
            if defined.get(word, path.stem) != path.stem:
                yield path.stem, defined[word], word
