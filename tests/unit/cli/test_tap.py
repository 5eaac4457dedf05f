"""What `tap` prints."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.cli.tap import as_text

ENTRY: dict[str, Any] = {
    "time": 1_700_000_000.25,
    "direction": "in",
    "pod": "shop/web-1",
    "peer": "shop/client",
    "method": "GET",
    "path": "/",
    "status": 200,
    "latencyMs": 1.25,
    "mtls": True,
    "clientId": "spiffe://example.org/c",
    "serverId": "",
}


def test_a_request_is_one_line() -> None:
    text = as_text({**ENTRY, "policy": "shop/allow", "grpcStatus": 7, "reason": "access denied"})
    assert text.split(" ", 1)[1] == (
        "shop/web-1 <- shop/client GET / 200/7 1.2ms mtls client=spiffe://example.org/c policy=shop/allow"
        ' reason="access denied"'
    )
    assert text.split(" ")[0].endswith(".250")


@given(st.text(), st.text())
def test_what_callers_write_does_not_move_the_cursor(path: str, method: str) -> None:
    assert as_text({**ENTRY, "path": path, "method": method}).isprintable()
