"""The gRPC peers use every kind of call, trailers, deadlines and statuses."""

from __future__ import annotations

import pytest

from .conftest import Call, Start


@pytest.fixture
def target(start: Start) -> str:
    return f"127.0.0.1:{start('grpc_server', '--name', 'prices-1').port}"


def test_unary_carries_metadata_both_ways(target: str, call: Call) -> None:
    seen = call("grpc_client", "unary", target, "--count", 3)

    metadata = dict(seen["answer"]["metadata"])
    assert (metadata["x-test"], metadata["x-test-bin"]) == ("1", "00ff")
    assert seen["trailers"] == {"x-served-by": "prices-1", "x-messages": "1"}
    assert seen["names"] == {"prices-1": 3}


def test_large_messages_pass(target: str, call: Call) -> None:
    seen = call("grpc_client", "unary", target, "--size", 20_000_000)

    assert (seen["answer"]["size"], seen["intact"]) == (20_000_000, True)


def test_server_streaming_delivers_messages_as_they_come(target: str, call: Call) -> None:
    seen = call("grpc_client", "download", target, "--count", 4, "--size", 1000, "--delay", 0.1)

    assert (seen["messages"], seen["size"], seen["trailers"]["x-messages"]) == (4, 4000, "1")
    assert min(seen["gaps"]) > 0.05


def test_client_streaming_counts_every_message(target: str, call: Call) -> None:
    seen = call("grpc_client", "upload", target, "--count", 50, "--size", 10_000)

    assert (seen["answer"]["messages"], seen["answer"]["size"], seen["intact"]) == (50, 500_000, True)
    assert seen["trailers"]["x-messages"] == "50"


def test_bidirectional_streaming_takes_turns(target: str, call: Call) -> None:
    seen = call("grpc_client", "chat", target, "--count", 20)

    assert (seen["messages"], seen["trailers"]["x-messages"]) == (20, "20")


def test_a_deadline_ends_the_call_on_both_sides(target: str, call: Call) -> None:
    seen = call("grpc_client", "deadline", target, "--delay", 0.3)

    assert seen["code"] == "DEADLINE_EXCEEDED"
    assert 0.25 < seen["took"] < 1.5
    assert seen["cancelled"] == 1


def test_a_cancelled_call_ends_on_the_server(target: str, call: Call) -> None:
    assert call("grpc_client", "cancel", target, "--delay", 0.3) == {"code": "CANCELLED", "cancelled": 1}


def test_an_error_carries_status_message_and_trailers(target: str, call: Call) -> None:
    seen = call("grpc_client", "fail", target)

    assert (seen["code"], seen["message"]) == ("INVALID_ARGUMENT", "told to fail: ä ✓")
    assert seen["trailers"]["x-detail"] == "as told"


def test_an_unknown_method_is_unimplemented(target: str, call: Call) -> None:
    assert call("grpc_client", "unknown", target) == {"code": "UNIMPLEMENTED"}


def test_no_server_is_an_error(call: Call) -> None:
    failure = call("grpc_client", "unary", "127.0.0.1:1", failing=True)

    assert failure["code"] == "UNAVAILABLE"
