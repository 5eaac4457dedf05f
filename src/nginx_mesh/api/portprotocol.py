"""Which protocol a port speaks.

A Service's `appProtocol` wins; else the port's name, or the part of it before the first dash; else port 80 is HTTP;
else TCP. `grpc` stands for HTTP/2 without TLS, of which gRPC is the common case: what is dialled as `http2` or `h2c`
needs the same treatment. What the application encrypts itself (`https`, `tls`) is TCP to the mesh.
"""

from __future__ import annotations

from typing import Literal

PortProtocol = Literal["http", "grpc", "tcp"]

_BY_APP_PROTOCOL: dict[str, PortProtocol] = {
    "http": "http",
    "ws": "http",
    "kubernetes.io/ws": "http",
    "grpc": "grpc",
    "h2c": "grpc",
    "http2": "grpc",
    "kubernetes.io/h2c": "grpc",
    "tcp": "tcp",
    "https": "tcp",
    "tls": "tcp",
    "kubernetes.io/wss": "tcp",
}
_BY_NAME: dict[str, PortProtocol] = {"http": "http", "grpc": "grpc", "tcp": "tcp"}


def protocol_of(*, port: int, name: str, app_protocol: str | None = None) -> PortProtocol:
    """The protocol of a Service port, or of a container port that no Service targets."""
    declared = _BY_APP_PROTOCOL.get((app_protocol or "").lower())
    if declared is not None:
        return declared
    named = _BY_NAME.get(name.partition("-")[0].lower())
    if named is not None:
        return named
    return "http" if port == 80 else "tcp"
