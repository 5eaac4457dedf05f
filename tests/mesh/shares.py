"""How a number of requests must be shared among servers that are chosen at random by weight."""

from __future__ import annotations

import math
from collections.abc import Mapping


def assert_shares(counted: Mapping[str, int], weights: Mapping[str, int]) -> None:
    """Check that the counts are within five standard deviations of what as many random choices give."""
    number, total = sum(counted.values()), sum(weights.values())
    assert set(counted) <= {name for name, weight in weights.items() if weight}, (counted, weights)
    for name, weight in weights.items():
        share = weight / total
        bound = 5 * math.sqrt(number * share * (1 - share))
        assert abs(counted.get(name, 0) - number * share) <= bound, (counted, weights)
