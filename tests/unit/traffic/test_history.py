"""Increases of counters within a window."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.traffic.exposition import Series
from nginx_mesh.traffic.history import History

A: Series = ("a", ())
B: Series = ("b", ())


def added(history: History, now: float, window: float = 30) -> dict[Series, float]:
    return dict(history.increases(now, window))


def test_the_first_scrape_is_no_increase() -> None:
    history = History(30)
    history.record("pod", 0, {A: 100})
    assert added(history, 1) == {}


def test_the_first_scrape_counts_when_the_process_started_within_the_window() -> None:
    history = History(30)
    history.record("pod", 100, {A: 3}, started=90)
    assert added(history, 101) == {A: 3}
    history.record("old", 100, {B: 1000}, started=2)
    history.record("old", 105, {B: 1001}, started=2)
    assert added(history, 105)[B] == 1


def test_a_restart_is_recognized_by_the_start_time() -> None:
    history = History(30)
    history.record("pod", 100, {A: 3}, started=90)
    history.record("pod", 110, {A: 5}, started=105)
    assert added(history, 110) == {A: 3 + 5}


def test_a_series_that_is_new_in_a_later_scrape_began_at_zero() -> None:
    history = History(30)
    history.record("pod", 0, {A: 100})
    history.record("pod", 5, {A: 100, B: 7})
    assert added(history, 6) == {B: 7}


def test_a_counter_that_became_less_was_restarted_at_zero() -> None:
    history = History(30)
    for when, value in ((0, 100), (5, 110), (10, 4), (15, 6)):
        history.record("pod", when, {A: value})
    assert added(history, 15) == {A: 10 + 4 + 2}


def test_increases_before_the_window_do_not_count() -> None:
    history = History(30)
    for when in range(0, 100, 5):
        history.record("pod", when, {A: when})
    # the scrape at the window's start is what the others are counted from
    assert added(history, 95) == {A: 30}
    assert added(history, 95, 10) == {A: 10}
    assert added(history, 200) == {}


def test_sources_that_are_not_retained_are_forgotten() -> None:
    history = History(30)
    for pod in ("one", "other"):
        history.record(pod, 0, {A: 0})
        history.record(pod, 5, {A: 1})
    history.retain({"one"})
    assert list(history.increases(5, 30)) == [(A, 1)]


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=50))
def test_the_increase_of_a_growing_counter_is_its_difference(steps: list[int]) -> None:
    history, value = History(1000), 0
    for when, step in enumerate(steps):
        value += step
        history.record("pod", when, {A: value})
    assert added(history, len(steps), 1000).get(A, 0) == value - steps[0]


@given(st.integers(1, 200), st.integers(1, 60))
def test_memory_is_bounded_by_the_window(scrapes: int, keep: int) -> None:
    history = History(keep)
    for when in range(scrapes):
        history.record("pod", when, {A: when})
    assert len(history._scrapes["pod"]) <= keep + 2


def test_rates_are_per_second_between_the_scrapes_of_a_source() -> None:
    history = History(30)
    for when, value in ((0, 100), (4, 120), (10, 150)):
        history.record("pod", when, {A: value})
    history.record("slow", 2, {B: 0})
    history.record("slow", 10, {B: 16})
    assert dict(history.rates(11, 30)) == {A: 5, B: 2}
    assert dict(history.rates_of("pod", 11, 5)) == {A: 5}
    assert dict(history.rates_of("pod", 30, 5)) == {}
    assert dict(history.rates_of("nobody", 11, 30)) == {}


def test_a_copy_does_not_change_with_the_original() -> None:
    history = History(30)
    history.record("pod", 0, {A: 100})
    history.record("pod", 5, {A: 110})
    copy = history.copy()
    history.record("pod", 10, {A: 140})
    history.retain(set())
    assert added(copy, 10) == {A: 10}
    assert added(history, 10) == {}


@given(
    st.lists(st.dictionaries(st.sampled_from([A, B, ("c", ())]), st.integers(0, 5)), min_size=1, max_size=12), st.data()
)
def test_increases_are_the_sum_over_all_scrapes_whatever_series_come_and_go(
    scrapes: list[dict[Series, float]], data: st.DataObject
) -> None:
    history = History(100)
    for when, counters in enumerate(scrapes):
        history.record("pod", when, counters)
    start = data.draw(st.integers(0, len(scrapes)))
    wanted: dict[Series, float] = {}
    for before, after in list(itertools.pairwise(scrapes))[start:]:
        for series, value in after.items():
            earlier = before.get(series, 0)
            wanted[series] = wanted.get(series, 0) + (value - earlier if value >= earlier else value)
    now = len(scrapes) - 1
    assert added(history, now, now - start) == {series: value for series, value in wanted.items() if value}
