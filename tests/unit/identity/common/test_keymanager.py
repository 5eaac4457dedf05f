import os
import random
import signal
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nginx_mesh.identity.common.keymanager import KEY_MANAGERS, KeyManager, KeyManagerError, open_key_manager
from nginx_mesh.identity.common.keymanager.disk import DiskKeyManager

# Puts ever longer versions, each one byte repeated, and prints each version that is durable.
WRITER = """
import sys
from pathlib import Path
from nginx_mesh.identity.common.keymanager.disk import DiskKeyManager
manager = DiskKeyManager(Path(sys.argv[1]))
for version in range(1, 100_000):
    manager.put("secret", bytes([version % 256]) * (2000 * (version % 100 + 1)))
    print(version, flush=True)
"""

# Puts one secret with a limit on file sizes, which makes write() fail half-way, as a full disk does.
CRAMPED = """
import resource, signal, sys
from pathlib import Path
from nginx_mesh.identity.common.keymanager import KeyManagerError
from nginx_mesh.identity.common.keymanager.disk import DiskKeyManager
manager = DiskKeyManager(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    manager.put("secret", b"n" * 100_000)
except KeyManagerError as error:
    print(error)
"""


@pytest.fixture(params=sorted(KEY_MANAGERS))
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> KeyManager:
    return open_key_manager(request.param, tmp_path / "keys")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "keys"


def test_every_key_manager_gives_back_what_it_keeps(manager: KeyManager) -> None:
    assert manager.get("one") is None
    manager.put("one", b"first")
    manager.put("two", b"")
    manager.put("one", b"second\n\x00\xff")
    assert manager.get("one") == b"second\n\x00\xff"
    assert manager.get("two") == b""


def test_a_secret_that_is_deleted_is_gone_and_no_other(manager: KeyManager) -> None:
    manager.put("one", b"first")
    manager.put("two", b"second")
    manager.delete("one")
    assert manager.get("one") is None
    assert manager.get("two") == b"second"
    manager.delete("one")
    manager.put("one", b"third")
    assert manager.get("one") == b"third"


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".new-x", "A", "a" * 65, "a\n", "a.b"])
def test_names_cannot_leave_the_directory(manager: KeyManager, name: str) -> None:
    with pytest.raises(KeyManagerError, match="secret name"):
        manager.put(name, b"x")
    with pytest.raises(KeyManagerError, match="secret name"):
        manager.get(name)
    with pytest.raises(KeyManagerError, match="secret name"):
        manager.delete(name)


def test_an_unknown_key_manager_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(KeyManagerError, match="'hsm' is not one of disk, memory"):
        open_key_manager("hsm", tmp_path)


def test_secrets_outlive_the_process_and_only_their_owner_can_open_them(directory: Path) -> None:
    before = os.umask(0)
    try:
        DiskKeyManager(directory).put("secret", b"kept")
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert DiskKeyManager(directory).get("secret") == b"kept"


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o755, 0o710])
def test_a_directory_open_to_others_is_refused(directory: Path, mode: int) -> None:
    DiskKeyManager(directory)
    directory.chmod(mode)
    with pytest.raises(KeyManagerError, match=f"{directory}: open to others .mode {mode:04o}.; make it 0700"):
        DiskKeyManager(directory)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_open_to_others_is_refused_and_not_replaced(directory: Path, mode: int) -> None:
    manager = DiskKeyManager(directory)
    manager.put("secret", b"kept")
    (directory / "secret").chmod(mode)
    for use in (
        partial(manager.get, "secret"),
        partial(manager.put, "secret", b"new"),
        partial(manager.delete, "secret"),
    ):
        with pytest.raises(KeyManagerError, match=f"secret: open to others .mode {mode:04o}.; make it 0600"):
            use()
    (directory / "secret").chmod(0o600)
    assert manager.get("secret") == b"kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_refused(directory: Path) -> None:
    manager = DiskKeyManager(directory)
    manager.put("secret", b"kept")
    os.chown(directory / "secret", 12345, -1)
    for use in (manager.get, manager.delete):
        with pytest.raises(KeyManagerError, match="owned by uid 12345"):
            use("secret")
    assert (directory / "secret").exists()
    os.chown(directory, 12345, -1)
    with pytest.raises(KeyManagerError, match="owned by uid 12345"):
        DiskKeyManager(directory)


def test_anything_but_a_plain_file_in_a_plain_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    manager = DiskKeyManager(directory)
    manager.put("secret", b"kept")
    (directory / "link").symlink_to(directory / "secret")
    os.mkfifo(directory / "pipe", 0o600)
    (directory / "folder").mkdir(mode=0o700)
    for name, reason in (("link", "symbolic links"), ("pipe", "not a regular file"), ("folder", "not a regular file")):
        for use in (manager.get, manager.delete):
            with pytest.raises(KeyManagerError, match=f"{name}: .*{reason}"):
                use(name)
    assert manager.get("secret") == b"kept"
    assert sorted(file.name for file in directory.iterdir()) == ["folder", "link", "pipe", "secret"]
    (tmp_path / "alias").symlink_to(directory)
    with pytest.raises(KeyManagerError, match="alias: not a directory"):
        DiskKeyManager(tmp_path / "alias")
    (tmp_path / "file").touch()
    with pytest.raises(KeyManagerError, match="file: "):
        DiskKeyManager(tmp_path / "file")


damages = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(0)),
    st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(1, 255)),
    st.tuples(st.just("append"), st.integers(1, 5000), st.integers(0, 255)),
)


@given(st.binary(min_size=1, max_size=3000), damages)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_reported_and_left_as_it_is(
    tmp_path: Path, secret: bytes, damage: tuple[str, int, int]
) -> None:
    manager, path = DiskKeyManager(tmp_path / "keys"), tmp_path / "keys" / "secret"
    path.unlink(missing_ok=True)
    manager.put("secret", secret)
    content = path.read_bytes()
    how, where, value = damage
    where %= len(content)
    match how:
        case "cut":
            damaged = content[:where]
        case "flip":
            damaged = content[:where] + bytes([content[where] ^ value]) + content[where + 1 :]
        case _:
            damaged = content + bytes([value]) * max(where, 1)
    path.write_bytes(damaged)
    for use in (
        partial(manager.get, "secret"),
        partial(manager.put, "secret", b"new"),
        partial(manager.delete, "secret"),
    ):
        with pytest.raises(KeyManagerError, match="secret: damaged") as failure:
            use()
        assert repr(secret) not in str(failure.value)
    assert path.read_bytes() == damaged


def test_a_writer_killed_at_any_moment_leaves_a_whole_secret_no_older_than_its_last_durable_one(
    directory: Path,
) -> None:
    rng = random.Random(4)
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"1\n"
            time.sleep(rng.uniform(0, 0.2))
            writer.send_signal(signal.SIGKILL)
            printed = writer.stdout.read().split()
        durable = int(printed[-1]) if printed else 1
        manager = DiskKeyManager(directory)
        secret = manager.get("secret")
        assert secret in [bytes([v % 256]) * (2000 * (v % 100 + 1)) for v in (durable, durable + 1)]
        assert [file.name for file in directory.iterdir()] == ["secret"]  # nothing half-written is left


def test_a_deletion_is_durable_on_return(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = DiskKeyManager(directory)
    manager.put("secret", b"gone")
    synced: list[tuple[Path, list[str]]] = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), os.listdir(directory)))  # noqa: PTH208
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    manager.delete("secret")
    assert synced == [(directory, [])]
    assert DiskKeyManager(directory).get("secret") is None


def test_a_write_that_fails_half_way_changes_nothing(directory: Path) -> None:
    manager = DiskKeyManager(directory)
    manager.put("secret", b"kept")
    done = subprocess.run([sys.executable, "-c", CRAMPED, str(directory)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{directory / 'secret'}: File too large\n"
    assert manager.get("secret") == b"kept"
    assert [file.name for file in directory.iterdir()] == ["secret"]


def test_a_directory_that_vanished_is_reported(directory: Path) -> None:
    manager = DiskKeyManager(directory)
    directory.rmdir()
    with pytest.raises(KeyManagerError, match="secret: No such file or directory"):
        manager.put("secret", b"x")
