"""The settings of injection."""

from __future__ import annotations

import msgspec

from nginx_mesh.version import version


def default_image() -> str:
    """The image of both the sidecar and the init container."""
    return f"nginx-mesh/sidecar:{version()}"


class InjectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Images, and ports that bypass the sidecar in every pod in addition to those of its annotations."""

    init_image: str = msgspec.field(default_factory=default_image)
    sidecar_image: str = msgspec.field(default_factory=default_image)
    ignore_incoming_ports: tuple[int, ...] = ()
    ignore_outgoing_ports: tuple[int, ...] = ()
