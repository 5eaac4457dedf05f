"""Files of SQLite: private, durable, and left alone when they are damaged."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nginx_mesh.identity.server.datastore import DatastoreConfig, DatastoreError, open_datastore

from .test_contract import AGENT, entry

# Puts entries, two in each transaction, and prints the number of each transaction that is durable.
WRITER = """
import sys
from pathlib import Path
from nginx_mesh.identity.server.datastore import DatastoreConfig, open_datastore
from nginx_mesh.identity.common.entry import RegistrationEntry
store = open_datastore(DatastoreConfig(), Path(sys.argv[1]))
first = int(sys.argv[2])
for number in range(first, first + 100_000):
    store.put_entries([RegistrationEntry(f"{number}-{half}", "spiffe://a/b", "spiffe://a/c", ("x" * 2000,)) for half in "ab"])
    print(number, flush=True)
"""  # noqa: E501


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def fill(directory: Path, entries: int = 200) -> Path:
    """A database with content in its file, closed."""
    store = open_datastore(DatastoreConfig(), directory)
    store.put_entries(entry(f"{number:04}", selectors=("s" * 300,)) for number in range(entries))
    store.close()
    return directory / "datastore.sqlite3"


def test_only_its_owner_can_open_the_files(directory: Path) -> None:
    before = os.umask(0)
    try:
        store = open_datastore(DatastoreConfig(), directory)
        store.put_entries([entry("a")])
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}
        assert modes == {f"datastore.sqlite3{end}": 0o600 for end in ("", "-wal", "-shm")}
        store.close()
    finally:
        os.umask(before)
    again = open_datastore(DatastoreConfig(), directory)
    assert again.entries() == [entry("a")]
    again.close()


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=ro#%20b%"
    for _ in range(2):
        store = open_datastore(DatastoreConfig(connection_string=str(odd / "x?y.sqlite3")), Path("/nonexistent"))
        store.put_ca_records("server", b"1")
        assert str(store) == f"sqlite3 datastore {odd}/x?y.sqlite3"
        store.close()
    assert [file.name for file in odd.iterdir()] == ["x?y.sqlite3"]


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o755])
def test_a_directory_open_to_others_is_refused(directory: Path, mode: int) -> None:
    directory.mkdir(parents=True)
    directory.chmod(mode)
    with pytest.raises(DatastoreError, match=f"{directory}: open to others .mode {mode:04o}.; make it 0700"):
        open_datastore(DatastoreConfig(), directory)
    assert list(directory.iterdir()) == []


def test_files_that_are_not_ours_alone_are_refused(directory: Path) -> None:
    path = fill(directory)
    path.chmod(0o640)
    with pytest.raises(DatastoreError, match=r"sqlite3: open to others .mode 0640.; make it 0600"):
        open_datastore(DatastoreConfig(), directory)
    path.chmod(0o600)
    (directory / "link").symlink_to(path)
    with pytest.raises(DatastoreError, match=r"link: .*symbolic links"):
        open_datastore(DatastoreConfig(connection_string="link"), directory)
    os.mkfifo(directory / "pipe", 0o600)
    with pytest.raises(DatastoreError, match="pipe: not a regular file"):
        open_datastore(DatastoreConfig(connection_string="pipe"), directory)
    (directory / "folder").mkdir(mode=0o700)
    with pytest.raises(DatastoreError, match="folder: Is a directory"):
        open_datastore(DatastoreConfig(connection_string="folder"), directory)
    directory.rename(directory.with_name("real"))
    directory.symlink_to(directory.with_name("real"))
    with pytest.raises(DatastoreError, match="data: not a directory"):
        open_datastore(DatastoreConfig(), directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_refused(directory: Path) -> None:
    path = fill(directory)
    os.chown(path, 12345, -1)
    with pytest.raises(DatastoreError, match="sqlite3: owned by uid 12345"):
        open_datastore(DatastoreConfig(), directory)


def _garbage(content: bytes) -> bytes:
    return random.Random(3).randbytes(len(content))


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _cut_page(content: bytes) -> bytes:
    return content[:-1000]


def _zero_pages(content: bytes) -> bytes:
    return content[:8192] + bytes(8192) + content[16384:]


def _garbled_page(content: bytes) -> bytes:
    page = 4096 * (len(content) // 4096 // 2)
    return content[:page] + random.Random(3).randbytes(4096) + content[page + 4096 :]


@pytest.mark.parametrize("damage", [_garbage, _cut, _cut_page, _zero_pages, _garbled_page])
def test_a_damaged_database_is_reported_and_left_as_it_is(directory: Path, damage: Callable[[bytes], bytes]) -> None:
    path = fill(directory)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    for _ in range(2):
        with pytest.raises(DatastoreError, match=f"{path}: damaged .*; restore it from a backup, or move it"):
            open_datastore(DatastoreConfig(), directory)
    assert path.read_bytes() == damaged
    path.rename(directory / "evidence")
    fill(directory)


def test_a_damaged_database_keeps_its_log(directory: Path) -> None:
    path = fill(directory)
    with subprocess.Popen([sys.executable, "-c", WRITER, directory, "0"], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
    log = path.with_name(f"{path.name}-wal")
    assert (kept := log.read_bytes())
    for damaged in (_garbled_page(path.read_bytes()), b""):
        path.write_bytes(damaged)
        with pytest.raises(DatastoreError, match="damaged"):
            open_datastore(DatastoreConfig(), directory)
        assert (path.read_bytes(), log.read_bytes()) == (damaged, kept)


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_acknowledged(directory: Path) -> None:
    rng = random.Random(5)
    durable: list[int] = []
    for round_ in range(4):
        first = round_ * 1_000_000
        with subprocess.Popen([sys.executable, "-c", WRITER, directory, str(first)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == f"{first}\n".encode()
            time.sleep(rng.uniform(0, 0.3))
            writer.send_signal(signal.SIGKILL)
            durable += [first, *map(int, writer.stdout.read().split())]
        store = open_datastore(DatastoreConfig(), directory)
        ids = {found.entry_id for found in store.entries()}
        changes = store.changes(0)
        store.close()
        assert ids >= {f"{number}-{half}" for number in durable for half in "ab"}
        halves = [entry_id.split("-")[0] for entry_id in ids]
        assert all(halves.count(number) == 2 for number in halves[:50])
        assert len(ids) <= 2 * (len(durable) + round_ + 1)  # at most one more per writer: killed before it could say so
        assert (set(changes.entries), changes.complete) == (ids, True)
    with closing(sqlite3.connect(directory / "datastore.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_ten_thousand_registrations_are_written_read_and_found_after_a_restart_in_time(directory: Path) -> None:
    entries = [
        entry(
            f"7f1c62f0-0000-4000-8000-{number:012}",
            parent=f"{AGENT}/{number % 100}",
            selectors=("k8s:ns:default", f"k8s:pod-name:web-{number}"),
            dns_names=("web.default.svc", "web.default.svc.cluster.local"),
        )
        for number in range(10_000)
    ]

    def spent(task: Callable[[], object]) -> float:
        before = time.thread_time()  # of this thread only: other tests run at the same time
        task()
        return time.thread_time() - before

    store = open_datastore(DatastoreConfig(), directory)
    assert spent(lambda: store.put_entries(entries)) < 2
    assert spent(store.entries) < 1
    assert spent(lambda: store.changes(0)) < 1
    store.close()
    assert spent(lambda: open_datastore(DatastoreConfig(), directory).close()) < 1
    again = open_datastore(DatastoreConfig(), directory)
    assert set(again.entries()) == set(entries)
    assert len(again.entries(f"{AGENT}/7")) == 100
    assert spent(lambda: again.delete_entries(each.entry_id for each in entries)) < 2
    assert again.entries() == []
    again.close()
