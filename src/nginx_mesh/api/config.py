"""ConfigMaps and Secrets."""

from __future__ import annotations

from typing import ClassVar

from .meta import Object


class ConfigMap(Object, frozen=True, kw_only=True):
    """v1 ConfigMap; `binary_data` values are base64."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ConfigMap"
    PLURAL: ClassVar[str] = "configmaps"

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}


class Secret(Object, frozen=True, kw_only=True):
    """v1 Secret; `data` values are base64."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Secret"
    PLURAL: ClassVar[str] = "secrets"

    type: str = "Opaque"
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}
