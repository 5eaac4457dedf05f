"""Namespaces and service accounts, nodes, and events."""

from __future__ import annotations

from typing import ClassVar

from .meta import Object


class Namespace(Object, frozen=True, kw_only=True):
    """v1 Namespace."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Namespace"
    PLURAL: ClassVar[str] = "namespaces"
    NAMESPACED: ClassVar[bool] = False


class ServiceAccount(Object, frozen=True, kw_only=True):
    """v1 ServiceAccount."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ServiceAccount"
    PLURAL: ClassVar[str] = "serviceaccounts"
