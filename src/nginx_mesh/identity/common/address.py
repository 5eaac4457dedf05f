"""Addresses that processes of identity listen at: a TCP port or a unix socket."""

from __future__ import annotations

from pathlib import Path

from nginx_mesh.api.errors import located
from nginx_mesh.api.values import HostPort, parse_host_port


def parse_address(text: str, field: str) -> HostPort | Path:
    """`host:port`, or the path of a unix socket after `unix:`. Raises FieldError about `field`."""
    if text.startswith("unix:/"):
        return Path(text.removeprefix("unix:"))
    with located(field):
        return parse_host_port(text)
