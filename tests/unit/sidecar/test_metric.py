"""How answers are counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from .native import Histogram, library

BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


@given(st.integers(0, 2**63))
def test_a_time_falls_into_the_first_bucket_that_holds_it(ms: int) -> None:
    bucket = library().metric_bucket(ms)
    assert bucket == next((i for i, bound in enumerate(BOUNDS) if ms <= bound), len(BOUNDS))


@given(st.lists(st.integers(0, 20_000)))
def test_a_histogram_has_every_time_once_and_their_sum(times: list[int]) -> None:
    histogram = Histogram()
    for ms in times:
        library().metric_observe(histogram, ms)
    assert sum(histogram.buckets) == len(times)
    assert histogram.sum == sum(times)


def test_registered_statuses_count_as_themselves() -> None:
    for status in (100, 101, 200, 204, 301, 308, 400, 404, 418, 429, 499, 500, 502, 503, 504, 511):
        assert library().metric_status(status) == status


@given(st.integers(0, 2**31 - 1))
def test_every_other_status_counts_as_one_of_few(status: int) -> None:
    """An endpoint that answers with every number makes no series of each."""
    counted = library().metric_status(status)
    assert counted == status or counted == (status - status % 100 if 100 <= status <= 599 else 500)
    assert len({library().metric_status(number) for number in range(1000)}) < 80
