"""The last lines of a file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nginx_mesh.local import logs


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.text(alphabet="ab\n", max_size=60), lines=st.integers(0, 8), chunk=st.integers(1, 20))
def test_the_tail_is_what_tail_prints(tmp_path: Path, content: str, lines: int, chunk: int) -> None:
    file = tmp_path / "log"
    file.write_text(content)
    whole, logs.CHUNK = logs.CHUNK, chunk
    try:
        start = logs.start_of_tail(file, lines)
    finally:
        logs.CHUNK = whole
    parts = content.splitlines(keepends=True)
    assert content[start:] == "".join(parts[len(parts) - min(lines, len(parts)) :])


def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert logs.start_of_tail(tmp_path / "none", 5) == 0
    assert logs.read_from(tmp_path / "none", 0) == (0, b"")


def test_reading_begins_anew_when_the_file_was_emptied(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("one\ntwo\n")
    assert logs.read_from(file, 4) == (8, b"two\n")
    file.write_text("new\n")
    assert logs.read_from(file, 8) == (4, b"new\n")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    before=st.lists(st.text("ab", max_size=3), max_size=5),
    now=st.lists(st.text("ab", max_size=3), max_size=5),
    lines=st.one_of(st.none(), st.integers(0, 12)),
)
def test_the_tail_reaches_back_beyond_a_rotation(
    tmp_path: Path, before: list[str], now: list[str], lines: int | None
) -> None:
    file = tmp_path / "log"
    (tmp_path / "log.1").write_text("".join(f"{line}\n" for line in before))
    file.write_text("".join(f"{line}\n" for line in now))
    shown = b""
    if (part := logs.earlier(file, lines)) is not None:
        shown += logs.read_from(*part)[1]
    shown += logs.read_from(file, 0 if lines is None else logs.start_of_tail(file, lines))[1]
    everything = [*before, *now]
    wanted = everything if lines is None else everything[len(everything) - min(lines, len(everything)) :]
    assert shown.decode() == "".join(f"{line}\n" for line in wanted)
