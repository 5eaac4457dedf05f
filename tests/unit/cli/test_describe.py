"""`describe`."""

from __future__ import annotations

import base64
from typing import Any

from nginx_mesh.cli.describe import describe

SERVICE: dict[str, Any] = {
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"b": "2", "a": "1"}, "uid": "u"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
}


def test_an_object_is_shown_with_its_endpoints_and_events() -> None:
    event = {
        "type": "Warning",
        "reason": "UpsertServiceFailed",
        "message": "no",
        "count": 3,
        "firstTimestamp": "1970-01-01T00:00:00Z",
        "lastTimestamp": "1970-01-01T00:01:00Z",
    }
    text = describe(SERVICE, [event], now=70.0, endpoints=["10.244.0.2:8080"])
    assert text.splitlines() == [
        "Name:        web",
        "Namespace:   shop",
        "Labels:      a=1",
        "             b=2",
        "Annotations: <none>",
        "Endpoints:   10.244.0.2:8080",
        "Spec:",
        "  Selector:",
        "    app:  web",
        "  Ports:",
        "    - Port:  80",
        "      Target Port:  8080",
        "Events:",
        "  Type      Reason                Age                 Message",
        "  ----      ------                ---                 -------",
        "  Warning   UpsertServiceFailed   10s (x3 over 70s)   no",
    ]


def test_a_secret_is_never_shown() -> None:
    value = base64.b64encode(b"hunter2").decode()
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": {"password": value}}
    text = describe(secret, [], now=0.0)
    assert "password:  7 bytes" in text
    assert value not in text
