"""Shares of traffic: who is chosen, by weight."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from .native import Share, library

shares = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), max_size=8)


def pick(pairs: list[tuple[int, bool]], random: int) -> int | None:
    """The index that is chosen among (weight, usable) pairs."""
    array = (Share * len(pairs))(*(Share(weight, usable) for weight, usable in pairs))
    chosen = library().split_pick(array, len(pairs), random)
    return None if chosen == len(pairs) else chosen


@given(shares, st.integers(0, 2**64 - 1))
def test_only_what_is_usable_and_has_weight_is_chosen_and_always_if_there_is_any(
    pairs: list[tuple[int, bool]], random: int
) -> None:
    able = {i for i, (weight, usable) in enumerate(pairs) if weight and usable}
    chosen = pick(pairs, random)
    assert chosen in able if able else chosen is None


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=5))
def test_every_share_is_exactly_its_weight(pairs: list[tuple[int, bool]]) -> None:
    """Over all random numbers below the sum of weights; what is not usable leaves its share to the others."""
    weights = {i: weight for i, (weight, usable) in enumerate(pairs) if weight and usable}
    assert Counter(pick(pairs, random) for random in range(sum(weights.values()))) == Counter(weights)
