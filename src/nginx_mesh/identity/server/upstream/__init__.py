"""Upstream authorities, which sign the mesh's CA. Each plugin has a name."""

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
"""Module and class by name. They are imported when used, as the clients of AWS and Kubernetes load for a second."""


def open_upstream(settings: UpstreamSettings, clock: Callable[[], float] = time.time) -> UpstreamAuthority:
    """The upstream authority that is configured. Raises FieldError.

    Nothing is read or contacted yet, so that a mesh starts although the files or servers of its upstream are gone.
    `check_files` is for the time when it is configured.
    """
    config = parse_config(settings)
    module, plugin = _PLUGINS[settings.upstream_authority]
    opened: UpstreamAuthority = getattr(import_module(f".{module}", __name__), plugin)(config, clock)
    return opened
