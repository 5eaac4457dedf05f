"""Which processor cores run what: the load and the application on one half, the proxies under test on the other.

On cores that all share, a proxy's answer waits for the load generator as much as for the proxy, and the latency of a
pair says more about wrk and the application than about the pair.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple


class Cores(NamedTuple):
    """Where wrk and the application run, and where both proxies of a pair do."""

    load: tuple[int, ...]
    proxies: tuple[int, ...]


def shared(available: Iterable[int]) -> Cores:
    """Everything runs everywhere."""
    everywhere = tuple(sorted(available))
    return Cores(everywhere, everywhere)


def split(available: Iterable[int]) -> Cores:
    """Half of the cores for each, the odd one for the proxies; a single core is shared."""
    ordered = tuple(sorted(available))
    half = len(ordered) // 2
    return Cores(ordered[:half], ordered[half:]) if half else shared(ordered)


def mine() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0)


def pinned(cores: Iterable[int], command: Iterable[str]) -> tuple[str, ...]:
    """`command`, to be run on `cores` only, its children too."""
    return ("taskset", "--cpu-list", ",".join(map(str, cores)), *command)
