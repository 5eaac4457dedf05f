from __future__ import annotations

from collections.abc import Callable

import pytest

from nginx_mesh.api import annotations as mesh
from nginx_mesh.api.errors import FieldError


@pytest.mark.parametrize(
    ("read", "key", "text", "value"),
    [
        (mesh.mtls_mode, mesh.MTLS_MODE, "strict", "strict"),
        (mesh.client_max_body_size, mesh.CLIENT_MAX_BODY_SIZE, "0", 0),
        (mesh.ignore_incoming_ports, mesh.IGNORE_INCOMING_PORTS, "80, 443", (80, 443)),
        (mesh.ignore_outgoing_ports, mesh.IGNORE_OUTGOING_PORTS, "", ()),
        (mesh.default_egress_allowed, mesh.DEFAULT_EGRESS_ALLOWED, "true", True),
        (mesh.lb_method, mesh.LB_METHOD, "least_time last_byte", "least_time last_byte"),
        (mesh.auto_inject, mesh.AUTO_INJECT, "disabled", "disabled"),
        (mesh.is_egress, mesh.ENABLE_EGRESS, "false", False),
        (mesh.internal_route, mesh.INTERNAL_ROUTE, "true", True),
    ],
)
def test_values_are_read(read: Callable[[dict[str, str]], object], key: str, text: str, value: object) -> None:
    assert read({key: text}) == value
    assert not read({})


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (mesh.mtls_mode, mesh.MTLS_MODE),
        (mesh.client_max_body_size, mesh.CLIENT_MAX_BODY_SIZE),
        (mesh.ignore_incoming_ports, mesh.IGNORE_INCOMING_PORTS),
        (mesh.default_egress_allowed, mesh.DEFAULT_EGRESS_ALLOWED),
        (mesh.lb_method, mesh.LB_METHOD),
        (mesh.auto_inject, mesh.AUTO_INJECT),
        (mesh.is_ingress, mesh.ENABLE_INGRESS),
    ],
)
def test_a_wrong_value_is_named_by_its_key(read: Callable[[dict[str, str]], object], key: str) -> None:
    with pytest.raises(FieldError) as caught:
        read({key: "nonsense"})
    assert caught.value.field == key
    assert "nonsense" in caught.value.reason


@pytest.mark.parametrize(
    ("pod", "namespace", "wanted"),
    [
        (None, None, False),
        (None, "enabled", True),
        (None, "disabled", False),
        ("enabled", None, True),
        ("enabled", "disabled", True),
        ("disabled", "enabled", False),
        ("nonsense", "enabled", False),
    ],
)
def test_a_pods_label_wins_over_its_namespaces(pod: str | None, namespace: str | None, wanted: bool) -> None:
    def labels(value: str | None) -> dict[str, str]:
        return {} if value is None else {mesh.AUTO_INJECT: value}

    assert mesh.wants_injection(labels(pod), labels(namespace)) is wanted


def test_all_that_is_wrong_with_a_pod_is_told() -> None:
    errors = mesh.check_pod({mesh.AUTO_INJECT: "yes"}, {mesh.MTLS_MODE: "on", mesh.IGNORE_INCOMING_PORTS: "x"})
    assert [error.field for error in errors] == [
        f"labels[{mesh.AUTO_INJECT}]",
        f"annotations[{mesh.MTLS_MODE}]",
        f"annotations[{mesh.IGNORE_INCOMING_PORTS}]",
    ]
