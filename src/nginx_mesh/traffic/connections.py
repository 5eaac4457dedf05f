"""TCP connections from one workload to another, as the callers' sidecars counted them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from .exposition import CONNECTIONS, FAILED_CONNECTIONS, MTLS_CONNECTIONS, RECEIVED, SENT, Series
from .flows import Ends, by_end, ends_of

_COUNTED = {
    CONNECTIONS: "tried",
    FAILED_CONNECTIONS: "failed",
    MTLS_CONNECTIONS: "mtls",
    SENT: "sent",
    RECEIVED: "received",
}


@dataclass(slots=True)
class Connections:
    """Connections that were tried, that failed, and that were made by mTLS; bytes that the caller sent and received."""

    tried: float = 0.0
    failed: float = 0.0
    mtls: float = 0.0
    sent: float = 0.0
    received: float = 0.0

    def add(self, other: Connections) -> None:
        """Add other connections to these."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True, slots=True)
class TcpFlow:
    """TCP connections from one workload to another. The labels of both ends are as in a Flow."""

    source: Mapping[str, str]
    destination: Mapping[str, str]
    connections: Connections


def tcp_flows(increases: Iterable[tuple[Series, float]]) -> list[TcpFlow]:
    """The TCP flows that these increases of counters are; other counters than those of TCP are passed over."""
    found: dict[Ends, Connections] = {}
    for (name, labels), added in increases:
        if counted := _COUNTED.get(name):
            connections = found.setdefault(ends_of(labels), Connections())
            setattr(connections, counted, getattr(connections, counted) + added)
    return [TcpFlow(*by_end(ends), connections) for ends, connections in found.items()]
