from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nginx_mesh.identity.server.datastore import IN_MEMORY, Datastore, DatastoreConfig, open_datastore
from nginx_mesh.identity.server.datastore.schema import metadata

from .servers import SERVERS, DatabaseServer

BACKENDS = ["sqlite3", "memory", *SERVERS]


class Clock:
    """Unix seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Servers = Callable[[str], DatabaseServer]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The server of a type, started when a test first needs it."""
    running: dict[str, DatabaseServer] = {}

    def get(database_type: str) -> DatabaseServer:
        if database_type not in running:
            running[database_type] = SERVERS[database_type]()
        return running[database_type]

    yield get
    for server in running.values():
        server.remove()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend, where a test does not choose."""
    return str(request.param)


@pytest.fixture
def config(backend: str, servers: Servers) -> Iterator[DatastoreConfig]:
    """An empty database. Those on servers are used again, for making one takes longer than most tests."""
    if backend not in SERVERS:
        yield IN_MEMORY if backend == "memory" else DatastoreConfig()
        return
    server = servers(backend)
    yield server.database("shared")
    empty = [f"DELETE FROM {table.name}" for table in metadata.sorted_tables]  # noqa: S608
    server.execute(*empty, "INSERT INTO change_counter (id, latest, pruned) VALUES (1, 0, 0)", database="shared")


@pytest.fixture
def new_config(backend: str, servers: Servers) -> Iterator[DatastoreConfig]:
    """A database that nobody opened before."""
    if backend not in SERVERS:
        yield IN_MEMORY if backend == "memory" else DatastoreConfig()
        return
    name = f"new_{uuid.uuid4().hex}"
    yield servers(backend).database(name)
    servers(backend).drop(name)


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
