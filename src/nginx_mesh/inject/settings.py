"""What injection depends on besides the pod."""

from __future__ import annotations

import msgspec

from nginx_mesh.version import version


def default_image() -> str:
    """The sidecar's image, which is the init container's as well."""
    return f"nginx-mesh/sidecar:{version()}"


class InjectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Images, and ports that bypass the sidecar in every pod besides those of its annotations."""

    init_image: str = msgspec.field(default_factory=default_image)
    sidecar_image: str = msgspec.field(default_factory=default_image)
    ignore_incoming_ports: tuple[int, ...] = ()
    ignore_outgoing_ports: tuple[int, ...] = ()
