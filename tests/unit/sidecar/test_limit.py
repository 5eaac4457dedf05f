"""Rate limits: the leaky bucket of nginx's limit_req.

That it is exactly that one is shown beside the original, in tests/mesh/test_rate_limit.py.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from .native import Bucket, Rate, library

START = 1_000_000  # milliseconds of a clock that has run for a while
NODELAY = (1 << 64) - 1
REFUSED = None
MINUTE = 60_000

RATES = st.builds(Rate, st.integers(1, 10**7), st.integers(0, 20).map((1000).__mul__), st.integers(0, 20_000))
TIMES = st.lists(st.integers(0, 300_000), max_size=100).map(sorted)


def take(bucket: Bucket, limit: Rate, time: int) -> int | None:
    """Milliseconds that a request at this time has to wait, None when it is over the limit."""
    if not library().limit_admits(bucket, limit, START + time):
        return REFUSED
    return int(library().limit_take(bucket, limit, START + time))


def waits(limit: Rate, times: list[int]) -> list[int | None]:
    bucket = Bucket()
    return [take(bucket, limit, time) for time in times]


def per_second(rate: int, burst: int = 0, delay: int | None = 0) -> Rate:
    return Rate(rate * 1000, burst * 1000, NODELAY if delay is None else delay * 1000)


def test_without_a_burst_requests_pass_at_the_rate_and_no_faster() -> None:
    assert waits(per_second(10), [0, 50, 100, 150, 200]) == [0, REFUSED, 0, REFUSED, 0]


def test_a_burst_waits_its_turn() -> None:
    assert waits(per_second(10, burst=2), [0, 0, 0, 0]) == [0, 100, 200, REFUSED]


def test_what_a_delay_lets_through_does_not_wait() -> None:
    assert waits(per_second(10, burst=3, delay=2), [0, 0, 0, 0, 0]) == [0, 0, 0, 100, REFUSED]


def test_nodelay_lets_the_whole_burst_through() -> None:
    assert waits(per_second(10, burst=2, delay=None), [0, 0, 0, 0]) == [0, 0, 0, REFUSED]


def test_a_refused_request_does_not_count() -> None:
    assert waits(per_second(10), [0, *[50] * 100, 100]) == [0, *[REFUSED] * 100, 0]


def test_a_clock_that_is_somewhat_behind_stands_still() -> None:
    """Workers read the time when they wake up, so that one may be behind what another wrote."""
    limit = per_second(10, burst=1, delay=None)
    assert waits(limit, [1000, 990, 1000, 1099, 1100]) == [0, 0, REFUSED, REFUSED, 0]


def test_a_clock_that_was_set_back_far_begins_anew() -> None:
    limit = per_second(1, burst=1, delay=None)
    assert waits(limit, [MINUTE + 1001, 0, 1000]) == [0, 0, 0]
    assert waits(per_second(1), [MINUTE + 1001, 0, 1000]) == [0, REFUSED, REFUSED]


@given(st.integers(1, 1000), st.integers(0, 20), st.lists(st.integers(0, 3000), max_size=200).map(sorted))
def test_no_more_than_rate_and_burst_pass_in_any_time(rate: int, burst: int, times: list[int]) -> None:
    verdicts = zip(times, waits(per_second(rate, burst, None), times), strict=True)
    passed = [time for time, wait in verdicts if wait is not REFUSED]
    for i, first in enumerate(passed):
        for j, last in enumerate(passed[i:], start=1):
            # each request is counted to the thousandth
            assert j <= (last - first) * rate / 1000 + burst + 1 + j / 1000


@given(RATES, TIMES, st.integers(0, 300_000))
def test_an_idle_bucket_is_as_good_as_a_new_one(limit: Rate, times: list[int], silence: int) -> None:
    bucket = Bucket()
    for time in times:
        take(bucket, limit, time)
    now = times[-1] + silence if times else silence
    fresh = Bucket()
    if library().limit_is_idle(bucket, limit, START + now):
        for later in (now, now, now + 10, now + 2000):
            assert take(bucket, limit, later) == take(fresh, limit, later)


def test_a_changed_limit_goes_on_with_what_was_counted() -> None:
    bucket = Bucket()
    assert [take(bucket, per_second(1, burst=5, delay=None), 0) for _ in range(7)] == [0] * 6 + [REFUSED]
    faster = per_second(10, burst=2, delay=None)
    assert [take(bucket, faster, time) for time in (0, 399, 400)] == [REFUSED, REFUSED, 0]


def test_a_limit_that_nobody_reaches_lets_pass_after_any_silence() -> None:
    assert waits(Rate(2**53, 0, 0), [0, 86_400_000, 2**52]) == [0, 0, 0]
