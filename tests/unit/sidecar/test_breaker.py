"""Circuit breakers: when they open, what passes then, and what closes them again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from .native import Breaker

SUCCEEDED, FAILED, UNKNOWN = range(3)
START = 1_000_000  # milliseconds of a clock that has run for a while


def fail(breaker: Breaker, now: int) -> None:
    ticket = breaker.admit(now)
    assert ticket is not None
    breaker.end(ticket, FAILED, now)


def opened(errors: int = 2, timeout: int = 1000) -> Breaker:
    """A breaker that opened at START."""
    breaker = Breaker(errors, timeout)
    for _ in range(errors):
        fail(breaker, START)
    assert breaker.seen(START) == "open"
    return breaker


def test_as_many_failures_as_it_takes_open_it_and_one_less_do_not() -> None:
    breaker = Breaker(3, 1000)
    for now in (START, START + 400):
        fail(breaker, now)
        assert breaker.seen(now) == "closed"
    fail(breaker, START + 999)
    assert breaker.seen(START + 999) == "open"
    assert breaker.admit(START + 999) is None


def test_failures_leave_the_window_one_by_one() -> None:
    breaker = Breaker(3, 1000)
    for offset in (0, 500, 1000, 1500, 2000):
        fail(breaker, START + offset)
        assert breaker.seen(START + offset) == "closed"
    fail(breaker, START + 2001)
    assert breaker.seen(START + 2001) == "open"


def test_successes_between_failures_change_nothing() -> None:
    breaker = Breaker(2, 1000)
    fail(breaker, START)
    for now in range(START, START + 100):
        ticket = breaker.admit(now)
        assert ticket is not None
        breaker.end(ticket, SUCCEEDED, now)
    fail(breaker, START + 100)
    assert breaker.seen(START + 100) == "open"


def test_it_stays_open_for_its_timeout_and_then_lets_one_try() -> None:
    breaker = opened()
    assert breaker.admit(START + 999) is None
    assert breaker.seen(START + 1000) == "half-open"
    assert breaker.admit(START + 1000) is not None
    assert [breaker.admit(START + 1001) for _ in range(5)] == [None] * 5


def test_it_tells_how_long_it_lets_nothing_pass_without_being_asked_to() -> None:
    breaker = opened()
    assert [breaker.wait(START + after) for after in (0, 999, 1000)] == [1000, 1, 0]
    assert breaker.wait(START + 1000) == 0, "to look is no trial"
    trial = breaker.admit(START + 1000)
    assert trial is not None
    assert breaker.wait(START + 1400) == 600, "then the trial counts as lost"
    breaker.end(trial, SUCCEEDED, START + 1500)
    assert breaker.wait(START + 1500) == 0


def test_a_trial_that_succeeds_closes_it_with_nothing_held_against_it() -> None:
    breaker = opened()
    trial = breaker.admit(START + 1000)
    assert trial is not None
    breaker.end(trial, SUCCEEDED, START + 1100)
    assert breaker.seen(START + 1100) == "closed"
    fail(breaker, START + 1100)
    assert breaker.seen(START + 1100) == "closed"


def test_a_trial_that_fails_opens_it_for_as_long_again() -> None:
    breaker = opened()
    trial = breaker.admit(START + 1000)
    assert trial is not None
    breaker.end(trial, FAILED, START + 1500)
    assert breaker.admit(START + 2499) is None
    assert breaker.admit(START + 2500) is not None
    assert breaker.trips == 2


def test_a_trial_whose_caller_leaves_is_followed_by_another() -> None:
    breaker = opened()
    trial = breaker.admit(START + 1000)
    assert trial is not None
    breaker.end(trial, UNKNOWN, START + 1001)
    assert breaker.seen(START + 1001) == "half-open"
    assert breaker.admit(START + 1001) is not None
    assert breaker.admit(START + 1001) is None


def test_a_trial_that_takes_its_time_keeps_nobody_waiting_for_longer_than_the_timeout() -> None:
    breaker = opened()
    slow = breaker.admit(START + 1000)
    assert slow is not None
    assert breaker.admit(START + 1999) is None
    second = breaker.admit(START + 2000)
    assert second is not None
    breaker.end(slow, SUCCEEDED, START + 2001)
    assert breaker.seen(START + 2001) == "half-open"
    breaker.end(second, SUCCEEDED, START + 2002)
    assert breaker.seen(START + 2002) == "closed"


def test_an_answer_that_begins_well_is_enough_of_a_trial_and_counts_once_more_if_it_breaks_off() -> None:
    breaker = opened()
    trial = breaker.admit(START + 1000)
    assert trial is not None
    stream = breaker.begun(trial)
    assert breaker.seen(START + 1000) == "closed"
    breaker.end(stream, FAILED, START + 1500)
    assert breaker.seen(START + 1500) == "closed"
    fail(breaker, START + 1600)
    assert breaker.seen(START + 1600) == "open"


def test_requests_that_began_before_it_opened_neither_close_it_nor_keep_it_open() -> None:
    breaker = Breaker(1, 1000)
    early = [breaker.admit(START) for _ in range(3)]
    fail(breaker, START)
    assert early[0] is not None
    breaker.end(early[0], SUCCEEDED, START + 500)
    assert breaker.seen(START + 500) == "open"
    trial = breaker.admit(START + 1000)
    assert trial is not None
    assert early[1] is not None
    breaker.end(early[1], FAILED, START + 1001)
    assert breaker.seen(START + 1001) == "half-open"
    breaker.end(trial, SUCCEEDED, START + 1002)
    assert early[2] is not None
    breaker.end(early[2], FAILED, START + 1003)
    assert breaker.seen(START + 1003) == "closed"


class Model:
    """The same, told as plainly as possible."""

    def __init__(self, errors: int, timeout: int) -> None:
        self.errors, self.timeout = errors, timeout
        self.state, self.since, self.trips = "closed", 0, 0
        self.failures: list[int] = []
        self.trial: object | None = None
        self.counted: set[object] = set()

    def admit(self, now: int) -> object | None:
        request = object()
        if self.state == "closed":
            self.counted.add(request)
            return request
        waiting = self.state == "open" or self.trial is not None
        if waiting and now - self.since < self.timeout:
            return None
        self.state, self.since, self.trial = "half-open", now, request
        return request

    def end(self, request: object, outcome: int, now: int) -> None:
        if request is self.trial:
            self.trial = None
            if outcome == SUCCEEDED:
                self.state = "closed"
            elif outcome == FAILED:
                self._open(now)
        elif request in self.counted and outcome == FAILED:
            self.failures.append(now)
            if sum(now - self.timeout < time for time in self.failures) >= self.errors:
                self._open(now)

    def _open(self, now: int) -> None:
        self.state, self.since, self.failures, self.counted = "open", now, [], set()
        self.trips += 1

    def seen(self, now: int) -> str:
        return "half-open" if self.state == "open" and now - self.since >= self.timeout else self.state


steps = st.lists(
    st.tuples(st.integers(0, 700), st.one_of(st.none(), st.tuples(st.integers(0, 5), st.sampled_from((0, 1, 1, 2))))),
    max_size=120,
)


@given(st.integers(1, 4), st.sampled_from((500, 1000)), steps)
def test_it_does_as_the_model_does(errors: int, timeout: int, steps: list[tuple[int, tuple[int, int] | None]]) -> None:
    """A step passes some time, and begins a request or ends one of those under way."""
    breaker, model = Breaker(errors, timeout), Model(errors, timeout)
    running: list[tuple[int, object]] = []
    now = START
    for pause, ending in steps:
        now += pause
        if ending is None:
            wait, ticket, request = breaker.wait(now), breaker.admit(now), model.admit(now)
            assert (ticket is None) == (request is None)
            assert (ticket is None) == (wait > 0)
            if ticket is not None and request is not None:
                running.append((ticket, request))
        elif running:
            ticket, request = running.pop(ending[0] % len(running))
            breaker.end(ticket, ending[1], now)
            model.end(request, ending[1], now)
        assert breaker.seen(now) == model.seen(now)
    assert breaker.trips == model.trips
