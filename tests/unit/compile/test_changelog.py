"""A changelog answers exactly, or says that it cannot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.compile.changelog import ChangeLog


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5))),
    st.integers(1, 4),
    st.integers(0, 30),
)
def test_a_journal_knows_what_changed_since_a_version_or_says_that_it_forgot(
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
