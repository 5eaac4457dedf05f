"""The load generator counts every failure, with its reason, and keeps its schedule."""

from __future__ import annotations

from .conftest import Call, Start


def test_mixed_load_succeeds_and_names_who_served_it(start: Start, call: Call) -> None:
    web = start("http_server", "--name", "web-1").port
    prices = start("grpc_server", "--name", "prices-1").port

    report = call(
        "load",
        *("--http", f"http://127.0.0.1:{web}/echo", "--grpc", f"127.0.0.1:{prices}"),
        *("--rate", 100, "--seconds", 1),
    )
    assert (report["sent"], report["ok"], report["failed"], report["reasons"]) == (100, 100, 0, {})
    assert report["served_by"] == {"web-1": 50, "prices-1": 50}
    assert 0.9 < report["seconds"] < 3
    for protocol in ("http", "grpc"):
        summary = report["protocols"][protocol]
        assert 0 < summary["p50_ms"] <= summary["p90_ms"] <= summary["p99_ms"] <= summary["max_ms"]


def test_total_bounds_the_requests(start: Start, call: Call) -> None:
    web = start("http_server").port

    report = call("load", "--http", f"http://127.0.0.1:{web}/echo", "--rate", 200, "--seconds", 5, "--total", 20)
    assert report["sent"] == 20


def test_error_statuses_are_failures(start: Start, call: Call) -> None:
    web = start("http_server", "--fault", "error:10").port

    arguments = ["--http", f"http://127.0.0.1:{web}/echo", "--rate", 100, "--total", 30]
    report = call("load", *arguments, failing=True)
    assert (report["ok"], report["reasons"]) == (10, {"http: HTTP 500": 20})
    assert report["examples"][0]["reason"] == "HTTP 500"


def test_closed_and_refused_connections_are_failures(start: Start, call: Call) -> None:
    web = start("http_server", "--fault", "refuse:5").port

    arguments = ["--http", f"http://127.0.0.1:{web}/echo", "--rate", 50, "--total", 20]
    report = call("load", *arguments, failing=True)
    assert report["ok"] == 5
    assert report["failed"] == 15


def test_grpc_statuses_are_failures(start: Start, call: Call) -> None:
    prices = start("grpc_server").port

    arguments = ["--grpc", f"127.0.0.1:{prices}", "--grpc-method", "/test.Peer/Fail", "--rate", 50, "--total", 5]
    report = call("load", *arguments, failing=True)
    assert report["reasons"] == {"grpc: gRPC INVALID_ARGUMENT: told to fail: ä ✓": 5}


def test_a_stall_is_seen_by_every_request_it_delays_and_concurrency_is_bounded(start: Start, call: Call) -> None:
    web = start("http_server", "--fault", "hang").port

    arguments = ["--http", f"http://127.0.0.1:{web}/echo", "--rate", 100, "--total", 30, "--concurrency", 10]
    report = call("load", *arguments, "--timeout", 0.5, failing=True)
    assert report["reasons"] == {"http: no answer in 0.5 s": 10, "http: saturated": 20}
