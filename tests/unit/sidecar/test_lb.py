"""Load balancing: each method chooses as its name says, failures are remembered and forgiven, nobody starves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .native import ABANDONED, DONE, FAILED, METHODS, SECOND, Pool

TIMED = [method for method in METHODS if "time" in method]


def pool_of(count: int, seed: int = 1) -> Pool:
    pool = Pool(seed)
    for name in range(count):
        pool.add(name)
    return pool


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_pool_has_nothing_to_offer(method: str) -> None:
    assert Pool().pick(method, SECOND) is None


@given(count=st.integers(1, 9), rounds=st.integers(1, 5), seed=st.integers(1, 2**63))
def test_round_robin_gives_each_its_turn(count: int, rounds: int, seed: int) -> None:
    pool = pool_of(count, seed)
    picks = [pool.pick("round_robin", SECOND) for _ in range(count * rounds)]
    assert Counter(picks) == dict.fromkeys(range(count), rounds)


@given(loads=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_least_conn_takes_the_least_busy(loads: list[int]) -> None:
    pool = pool_of(len(loads))
    for name, load in enumerate(loads):
        for _ in range(load):
            pool.begin(name, SECOND)
    chosen = pool.pick("least_conn", SECOND)
    assert chosen is not None
    assert loads[chosen] == min(loads)


def test_least_conn_takes_turns_among_equals() -> None:
    pool = pool_of(4)
    assert Counter(pool.pick("least_conn", SECOND) for _ in range(40)) == dict.fromkeys(range(4), 10)


@pytest.mark.parametrize(
    ("method", "winner"),
    [
        ("least_time", 0),
        ("random two least_time", 0),
        ("least_time last_byte", 1),
        ("least_time last_byte inflight", 1),
        ("random two least_time=last_byte", 1),
    ],
)
def test_time_is_measured_to_the_byte_that_the_name_says(method: str, winner: int) -> None:
    """Endpoint 0 is quick to begin and slow to end, endpoint 1 the other way round."""
    pool = pool_of(2)
    for i in range(20):
        pool.serve(0, SECOND + i, first=100, last=9000)
        pool.serve(1, SECOND + i, first=1000, last=2000)
    assert {pool.pick(method, SECOND + 20) for _ in range(20)} == {winner}


def test_inflight_counts_requests_that_hang() -> None:
    pool = pool_of(2)
    for name in (0, 1):
        pool.serve(name, SECOND, 100, 1000)
    pool.begin(0, SECOND)
    pool.begin(1, 2 * SECOND)
    pool.begin(1, 2 * SECOND)
    # two young requests weigh less than one that has been under way for a second
    assert pool.pick("least_time last_byte inflight", 2 * SECOND) == 1
    assert pool.pick("least_time last_byte", 2 * SECOND) == 0


@pytest.mark.parametrize("method", TIMED)
def test_a_new_endpoint_is_tried_at_once_and_not_flooded(method: str) -> None:
    pool = pool_of(3)
    for i in range(50):
        pool.serve(i % 3, SECOND + i, 1000, 1000)
    pool.add(3)
    picks = []
    for i in range(40):
        name = pool.pick(method, SECOND + 100 + i)
        assert name is not None
        picks.append(name)
        pool.begin(name, SECOND + 100 + i)
    share = Counter(picks)[3]
    assert 1 <= share <= 20, f"{share} of 40"


@pytest.mark.parametrize("method", [m for m in TIMED if "random" not in m])
def test_a_slow_endpoint_gets_another_chance(method: str) -> None:
    """One bad second must not banish an endpoint for good."""
    pool = pool_of(2)
    pool.serve(1, SECOND, 1000, 1000)
    pool.serve(0, SECOND, SECOND, SECOND)
    now, tried_after = 2 * SECOND, None
    while tried_after is None and now < 120 * SECOND:
        name = pool.pick(method, now)
        if name == 0:
            tried_after = now
        else:
            pool.serve(1, now, 1000, 1000)
        now += SECOND // 10
    assert tried_after is not None
    assert tried_after > 3 * SECOND


@pytest.mark.parametrize("method", METHODS)
def test_a_failed_endpoint_rests_and_is_tried_by_one_request(method: str) -> None:
    pool = pool_of(3)
    now = SECOND
    pool.begin(1, now)
    pool.end(1, FAILED, now, now)
    assert 1 not in {pool.pick(method, now + 9 * SECOND) for _ in range(60)}
    assert [pool.down(name, now + 9 * SECOND) for name in (0, 1)] == [0, SECOND]
    later = [pool.pick(method, now + 11 * SECOND) for _ in range(200)]
    assert later.count(1) == 1, "one trial, then the others wait for what it shows"
    picks = set()
    for i in range(200):
        name = pool.pick(method, now + 12 * SECOND + i) if i else 1
        assert name is not None
        picks.add(name)
        pool.serve(name, now + 12 * SECOND + i, 10, 10)
    assert picks == {0, 1, 2}


@pytest.mark.parametrize("method", METHODS)
def test_when_all_failed_requests_are_tried_nevertheless(method: str) -> None:
    pool = pool_of(3)
    for name in range(3):
        pool.begin(name, SECOND)
        pool.end(name, FAILED, SECOND, SECOND)
    assert pool.pick(method, SECOND + 1) is not None


@pytest.mark.parametrize("method", METHODS)
@given(count=st.integers(1, 5), data=st.data())
def test_no_endpoint_is_tried_twice_for_a_request(method: str, count: int, data: st.DataObject) -> None:
    pool = pool_of(count, data.draw(st.integers(1, 2**63)))
    tried: tuple[int, ...] = ()
    for _ in range(count):
        name = pool.pick(method, SECOND, tried)
        assert name is not None
        assert name not in tried
        tried = (*tried, name)
    assert pool.pick(method, SECOND, tried) is None


@pytest.mark.parametrize("method", ["random", "random two"])
def test_random_is_uniform_also_beside_a_failed_endpoint(method: str) -> None:
    pool = pool_of(5, seed=99)
    pool.begin(2, SECOND)
    pool.end(2, FAILED, SECOND, SECOND)
    picks = Counter(pool.pick(method, SECOND) for _ in range(20_000))
    # 5000 expected each, standard deviation 61: six of them
    assert set(picks) == {0, 1, 3, 4}
    assert all(abs(n - 5000) < 370 for n in picks.values()), picks


@settings(max_examples=300)
@given(
    method=st.sampled_from(METHODS),
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "remove", "request", "finish", "fail", "abandon"]), st.integers(0, 1000)),
        max_size=60,
    ),
)
def test_counts_come_out_even_whatever_happens(method: str, steps: list[tuple[str, int]]) -> None:
    """Endpoints come and go while requests run: a pick is always a member, and no count of requests is lost."""
    pool, now, added = Pool(), SECOND, 0
    running: list[tuple[int, int]] = []
    for action, number in steps:
        now += number * 1000
        if action == "add":
            pool.add(added)
            added += 1
        elif action == "remove" and pool.names:
            name = sorted(pool.names)[number % len(pool.names)]
            running = [request for request in running if request[0] != name]
            pool.remove(name)
        elif action == "request":
            picked = pool.pick(method, now)
            assert (picked is None) == (not pool.names)
            if picked is not None:
                pool.begin(picked, now)
                running.append((picked, now))
        elif running:
            name, started = running.pop(number % len(running))
            outcome = {"finish": DONE, "fail": FAILED}.get(action, ABANDONED)
            pool.end(name, outcome, started, now)
    expected = Counter(name for name, _ in running)
    assert {name: pool.active(name) for name in pool.names} == {name: expected[name] for name in pool.names}
