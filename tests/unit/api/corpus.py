"""Objects as a real API server gives them; `objects/README.md` says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Raw = dict[str, Any]

DIRECTORY = Path(__file__).with_name("objects")


def read(name: str) -> Raw:
    """A JSON file of the corpus."""
    value: Raw = json.loads((DIRECTORY / name).read_bytes())
    return value


def objects(*names: str) -> list[Raw]:
    """The objects of these files, or of all lists of the corpus."""
    files = names or sorted(path.name for path in DIRECTORY.glob("*s.json"))
    return [item for name in files for item in read(name)["items"]]


def pod(name: str) -> Raw:
    """One of the pods, by its name or how that begins."""
    return next(item for item in objects("pods.json") if item["metadata"]["name"].startswith(name))


def title(raw: Raw) -> str:
    """What tests are called that are about this object."""
    return f"{raw['kind']}-{raw['metadata']['name']}"


def watch() -> list[bytes]:
    """The lines of the watch."""
    return (DIRECTORY / "watch-pods-with-initial-events.ndjson").read_bytes().splitlines()
