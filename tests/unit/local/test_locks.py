"""Locks by which the daemon knows what lives: looking is never in the way of locking."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nginx_mesh.local.locks import is_locked, lock


def test_a_lock_is_seen_as_long_as_its_file_is_open(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    assert not is_locked(path)
    lock(fd)
    assert is_locked(path)
    os.close(fd)
    assert not is_locked(path)


def test_only_one_holds_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    lock(first)
    with pytest.raises(BlockingIOError):
        lock(second)
    os.close(first)
    lock(second)
    os.close(second)


def test_a_child_that_inherits_the_file_keeps_the_lock_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    lock(fd)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[fd]) as child:
        os.close(fd)
        assert is_locked(path)
        child.communicate(b"\n")
    assert not is_locked(path)


def test_looking_at_a_lock_never_keeps_it_from_being_taken(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            is_locked(path)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(20_000):
            fd = os.open(path, os.O_RDWR)
            lock(fd)  # raises if a looker held anything
            os.close(fd)
    finally:
        end.set()
        for looker in lookers:
            looker.join()
