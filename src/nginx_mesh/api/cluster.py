"""Namespaces and service accounts, nodes, and events."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from .meta import Model, Object, ObjectReference


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


class NodeAddress(Model, frozen=True, kw_only=True):
    """status.addresses[]: of type InternalIP, ExternalIP or Hostname."""

    type: str
    address: str


class NodeSpec(Model, frozen=True, kw_only=True):
    """Node spec: the networks of its pods."""

    pod_cidrs: list[str] = msgspec.field(name="podCIDRs", default_factory=list)


class NodeStatus(Model, frozen=True, kw_only=True):
    """Node status."""

    addresses: list[NodeAddress] = []


class Node(Object, frozen=True, kw_only=True):
    """v1 Node."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Node"
    PLURAL: ClassVar[str] = "nodes"
    NAMESPACED: ClassVar[bool] = False

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Event(Object, frozen=True, kw_only=True):
    """v1 Event: what happened to an object. `type` is Normal or Warning; times are RFC 3339."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Event"
    PLURAL: ClassVar[str] = "events"

    involved_object: ObjectReference
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int = 0
    first_timestamp: str = ""
    last_timestamp: str = ""
