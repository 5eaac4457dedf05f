"""The event log."""

from __future__ import annotations

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.local.api.events import EventLog

POD = ObjectKey("Pod", "shop", "web")


def test_a_repeated_event_is_counted_and_moves_to_the_end() -> None:
    now = [0.0]
    log = EventLog(lambda: now[0])
    log.record(POD, "Warning", "BackOff", "again")
    log.record(POD, "Normal", "Started", "once")
    now[0] = 60.0
    log.record(POD, "Warning", "BackOff", "again")
    started, backoff = log.list("shop")
    assert started["reason"] == "Started"
    assert (backoff["count"], backoff["firstTimestamp"], backoff["lastTimestamp"]) == (
        2,
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:01:00Z",
    )
    assert log.list("other") == []


def test_the_log_forgets_the_oldest_events() -> None:
    log = EventLog(lambda: 0.0, limit=3)
    for number in range(5):
        log.record(POD, "Normal", "N", str(number))
    assert [event["message"] for event in log.list()] == ["2", "3", "4"]


def test_a_warning_that_was_given_for_another_reason_is_not_given_again() -> None:
    log = EventLog(lambda: 0.0)
    key = ObjectKey("RateLimit", "shop", "l")
    log.record(key, "Warning", "UpsertRateLimitFailed", "there is no a")
    for message in ("there is no a", "there is no b", "there is no b"):
        log.warn_once(key, "UnknownReference", message, or_said_as="UpsertRateLimitFailed")
    assert [(event["reason"], event["message"], event["count"]) for event in log.list()] == [
        ("UpsertRateLimitFailed", "there is no a", 1),
        ("UnknownReference", "there is no b", 1),
    ]
