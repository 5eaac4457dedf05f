from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nginx_mesh.identity.datastore import IN_MEMORY, Datastore, DatastoreConfig, open_datastore

BACKENDS = ["sqlite3", "memory"]


class Clock:
    """Unix seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=BACKENDS)
def config(request: pytest.FixtureRequest) -> DatastoreConfig:
    """A new database."""
    return IN_MEMORY if request.param == "memory" else DatastoreConfig()


Opener = Callable[[], Datastore]


@pytest.fixture
def another(config: DatastoreConfig, tmp_path: Path, clock: Clock) -> Iterator[Opener]:
    """Opens the database once more, as another server does."""
    opened: list[Datastore] = []

    def open_one() -> Datastore:
        opened.append(open_datastore(config, tmp_path / "data", clock))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(another: Opener) -> Datastore:
    return another()
