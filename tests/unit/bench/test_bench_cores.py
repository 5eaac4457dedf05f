"""Where the benchmark runs what."""

from __future__ import annotations

import os
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from bench import cores


@given(st.sets(st.integers(0, 255), min_size=2))
def test_neither_the_load_nor_the_application_runs_where_the_proxies_do(available: set[int]) -> None:
    load, proxies = cores.split(available)
    assert set(load) | set(proxies) == available
    assert not set(load) & set(proxies)
    assert 0 <= len(proxies) - len(load) <= 1


def test_a_single_core_is_shared() -> None:
    assert cores.split({3}) == cores.shared({3}) == ((3,), (3,))


def test_a_pinned_command_runs_on_its_cores_only() -> None:
    core = max(cores.mine())
    script = "import os; print(os.sched_getaffinity(0))"
    done = subprocess.run(cores.pinned([core], ("python3", "-c", script)), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str({core})
    assert os.sched_getaffinity(0) == cores.mine()
