"""Rate limits: the leaky bucket of nginx's limit_req."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from .native import Bucket, Rate, library

START = 1_000_000  # milliseconds of a clock that has run for a while


def waits(limit: Rate, times: list[int]) -> list[float]:
    """Seconds that requests at these times have to wait, -1 for those over the limit."""
    bucket = Bucket()
    return [library().limit_take(bucket, limit, START + time) for time in times]


def per_second(rate: float, burst: float = 0, delay: float = 0) -> Rate:
    return Rate(rate * 1000, burst, delay)


def test_without_a_burst_requests_pass_at_the_rate_and_no_faster() -> None:
    assert waits(per_second(10), [0, 50, 100, 150, 200]) == [0, -1, 0, -1, 0]


def test_a_burst_waits_its_turn() -> None:
    assert waits(per_second(10, burst=2), [0, 0, 0, 0]) == [0, 0.1, 0.2, -1]


def test_what_a_delay_lets_through_does_not_wait() -> None:
    assert waits(per_second(10, burst=3, delay=2), [0, 0, 0, 0, 0]) == [0, 0, 0, 0.1, -1]


def test_nodelay_lets_the_whole_burst_through() -> None:
    assert waits(per_second(10, burst=2, delay=-1), [0, 0, 0, 0]) == [0, 0, 0, -1]


def test_a_refused_request_does_not_count() -> None:
    assert waits(per_second(10), [0, *[50] * 100, 100]) == [0, *[-1] * 100, 0]


@given(st.integers(1, 1000), st.integers(0, 20), st.lists(st.integers(0, 3000), max_size=200).map(sorted))
def test_no_more_than_rate_and_burst_pass_in_any_time(rate: int, burst: int, times: list[int]) -> None:
    passed = [time for time, wait in zip(times, waits(per_second(rate, burst, -1), times), strict=True) if wait >= 0]
    for i, first in enumerate(passed):
        for j, last in enumerate(passed[i:], start=1):
            # each request is counted to the thousandth
            assert j <= (last - first) * rate / 1000 + burst + 1 + j / 1000


def test_a_limit_that_nobody_reaches_lets_pass_after_any_silence() -> None:
    assert waits(Rate(2**53, 0, 0), [0, 86_400_000]) == [0, 0]
