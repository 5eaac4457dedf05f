"""A change log gives exact answers, or None."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.compile.changelog import ChangeLog


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5))),
    st.integers(1, 4),
    st.integers(0, 30),
)
def test_a_change_log_returns_all_changes_since_a_version_or_none_when_it_forgot_some(
    steps: list[tuple[int, int]], capacity: int, asked: int
) -> None:
    changelog: ChangeLog[int] = ChangeLog(5, capacity)
    version, history = 5, list[tuple[int, int]]()
    for later, key in steps:
        version += later
        changelog.record(key, version)
        history.append((version, key))
    answer = changelog.since(asked)
    expected = {key for changed, key in history if changed > asked}
    if answer is None:
        assert asked < 5 or len({key for _, key in history}) > capacity
    else:
        assert len(answer) == len(set(answer))
        assert set(answer) == expected
    if asked >= version:
        assert answer == []
