"""The version of this release."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """As it is tagged, for example 1.2.3."""
    return metadata.version("nginx-mesh")
