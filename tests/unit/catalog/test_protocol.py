"""A port's protocol: appProtocol, then its name, then port 80, then TCP."""

from __future__ import annotations

import pytest

from nginx_mesh.api.portprotocol import protocol_of


@pytest.mark.parametrize(
    ("app_protocol", "name", "port", "protocol"),
    [
        ("http", "tcp", 5432, "http"),
        ("HTTP", "", 5432, "http"),
        ("kubernetes.io/ws", "", 1, "http"),
        ("kubernetes.io/h2c", "http", 80, "grpc"),
        ("http2", "", 1, "grpc"),
        ("grpc", "", 1, "grpc"),
        ("https", "http", 80, "tcp"),
        ("tls", "", 80, "tcp"),
        ("mycompany.com/protocol", "http-web", 1, "http"),
        ("mycompany.com/protocol", "", 80, "http"),
        (None, "http", 1, "http"),
        (None, "http-web", 1, "http"),
        (None, "grpc-web-x", 1, "grpc"),
        (None, "tcp-http", 80, "tcp"),
        (None, "httpd", 1, "tcp"),
        (None, "web", 80, "http"),
        (None, "", 80, "http"),
        (None, "", 8080, "tcp"),
    ],
)
def test_the_order_of_app_protocol_port_name_and_number(
    app_protocol: str | None, name: str, port: int, protocol: str
) -> None:
    assert protocol_of(port=port, name=name, app_protocol=app_protocol) == protocol
