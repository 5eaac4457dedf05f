"""The TCP peers keep to their modes."""

from __future__ import annotations

import pytest

from .conftest import Call, Start


def test_the_server_speaks_first(start: Start, call: Call) -> None:
    port = start("tcp_server", "--mode", "greeting", "--name", "mail-1").port

    seen = call("tcp_client", "greeting", "127.0.0.1", port, "--idle", 0.3)
    assert seen["greeting"] == "220 mail-1 ready"
    assert seen["answers"] == ["250 hello mesh", "250 127.0.0.1", "500 unknown command", "221 bye"]
    assert seen["ended"] is True


def test_a_client_notices_a_server_that_does_not_speak_first(start: Start, call: Call) -> None:
    port = start("tcp_server", "--mode", "echo").port

    failure = call("tcp_client", "greeting", "127.0.0.1", port, "--timeout", 0.5, failing=True)
    assert failure["error"].startswith("TimeoutError")


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
def test_the_count_comes_after_the_client_has_ended_its_side(start: Start, call: Call, size: int) -> None:
    port = start("tcp_server", "--mode", "count", "--name", "counter").port

    seen = call("tcp_client", "count", "127.0.0.1", port, "--size", size, "--idle", 0.2)
    assert seen == {"name": "counter", "size": size, "intact": True}


def test_echo_carries_much_data_both_ways_at_once(start: Start, call: Call) -> None:
    port = start("tcp_server", "--mode", "echo").port

    seen = call("tcp_client", "echo", "127.0.0.1", port, "--size", 20_000_001)
    assert seen == {"size": 20_000_001, "intact": True}


def test_lines_are_numbered_over_one_idle_connection(start: Start, call: Call) -> None:
    port = start("tcp_server", "--mode", "lines").port

    assert call("tcp_client", "lines", "127.0.0.1", port, "--count", 3, "--idle", 0.3) == {"lines": 3}
