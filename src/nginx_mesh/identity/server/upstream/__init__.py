"""Upstream authorities: what signs the mesh's CA. Implementations are found by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module

from nginx_mesh.api.settings import UpstreamAuthority as UpstreamSettings

from .base import MintedCa, UpstreamAuthority, UpstreamError
from .config import check_files, parse_config

__all__ = ["MintedCa", "UpstreamAuthority", "UpstreamError", "check_files", "open_upstream", "parse_config"]

_PLUGINS = {
    "disk": ("disk", "DiskAuthority"),
    "aws_pca": ("aws_pca", "AwsPcaAuthority"),
    "awssecret": ("awssecret", "AwsSecretAuthority"),
    "vault": ("vault", "VaultAuthority"),
    "cert-manager": ("cert_manager", "CertManagerAuthority"),
}
"""Name → module and class, imported when used: the clients of AWS and Kubernetes take a second to load."""


def open_upstream(settings: UpstreamSettings, clock: Callable[[], float] = time.time) -> UpstreamAuthority:
    """The upstream authority that is configured. Raises FieldError; nothing is read or contacted yet.

    So one whose files or servers are gone can be opened; `check_files` is for when it is configured.
    """
    config = parse_config(settings)
    module, plugin = _PLUGINS[settings.upstream_authority]
    opened: UpstreamAuthority = getattr(import_module(f".{module}", __name__), plugin)(config, clock)
    return opened
