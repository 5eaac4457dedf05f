"""How each database is opened: pools, timeouts, durability, and the files of SQLite."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event

from nginx_mesh.identity.common.files import privacy_fault

from .base import DatastoreError
from .config import DatastoreConfig, mysql_arguments, postgres_arguments, read_password, sqlite_path

_LOCK_TIMEOUT = 10
"""Seconds that a transaction waits for others."""

# What was committed has to survive a power failure: a join token that was used must not come back, and a bundle must
# not lose a CA that signs already. Writes are few, so that each may cost an fsync.
_SQLITE = f"""
PRAGMA busy_timeout={_LOCK_TIMEOUT * 1000};
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
PRAGMA foreign_keys=ON;
"""
# The server gives up on a transaction whose client vanished.
_MYSQL = f"SET SESSION innodb_lock_wait_timeout={_LOCK_TIMEOUT}, wait_timeout=60"


@contextmanager
def opening(config: DatastoreConfig, directory: Path) -> Iterator[tuple[Engine, str]]:
    """An engine and where it leads, for messages. Other processes that open the same SQLite file wait meanwhile."""
    if config.database_type == "postgres":
        arguments = postgres_arguments(config)
        where = f"{arguments['dbname']} at {arguments.get('host', 'localhost')}:{arguments.get('port', 5432)}"
        yield _remote("postgresql+psycopg://", _POSTGRES | arguments, config), f"postgres datastore {where}"
    elif config.database_type == "mysql":
        arguments = mysql_arguments(config)
        where = arguments.get("unix_socket") or f"{arguments['host']}:{arguments['port']}"
        yield (
            _remote("mysql+pymysql://", _PYMYSQL | arguments, config),
            f"mysql datastore {arguments['database']} at {where}",
        )
    elif (path := sqlite_path(config, directory)) is None:
        # One connection, as each would be a database of its own.
        yield _sqlite(":memory:", pool_size=1, max_overflow=0), "sqlite3 datastore in memory"
    else:
        with _prepared(path):
            yield _sqlite(str(path)), f"sqlite3 datastore {path}"


_POSTGRES: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "fallback_application_name": "nginx-mesh",
    "prepare_threshold": None,  # poolers in between may not know prepared statements
}
_PYMYSQL: dict[str, Any] = {
    "charset": "utf8mb4",
    "connect_timeout": 5,
    "read_timeout": 30,
    "write_timeout": 30,
    "sql_mode": "TRADITIONAL",  # what does not fit is an error
    "init_command": _MYSQL,
}


def _remote(url: str, arguments: dict[str, Any], config: DatastoreConfig) -> Engine:
    engine = create_engine(
        url,
        connect_args=arguments,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_timeout=30,
        hide_parameters=True,
    )
    if config.password_file:
        read_password(config.password_file)  # a wrong path is the configuration's fault: say so at once

        @event.listens_for(engine, "do_connect")
        def _password(_dialect: object, _record: object, _args: object, arguments: dict[str, Any]) -> None:
            arguments["password"] = read_password(config.password_file)

    return engine


def _sqlite(database: str, **pool: int) -> Engine:
    def connect() -> sqlite3.Connection:
        # Transactions are begun below, not by the driver, which would leave reads outside of them.
        connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        connection.executescript(_SQLITE)
        return connection

    engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=QueuePool, hide_parameters=True, **pool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # SQLite lets no transaction that read first wait for the right to write, so writers say so at the beginning.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


@contextmanager
def _prepared(path: Path) -> Iterator[None]:
    """Make sure that the file exists, is ours alone and undamaged. The directory is locked. Raises DatastoreError."""
    directory = path.parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if fault := privacy_fault(directory, os.lstat(directory), stat.S_IFDIR):
            raise DatastoreError(fault)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            status = os.fstat(descriptor)
            os.close(descriptor)
            if fault := privacy_fault(path, status, stat.S_IFREG):
                raise DatastoreError(fault)
            if damage := _damage(path, status.st_size):
                raise DatastoreError(f"{path}: damaged ({damage}); restore it from a backup, or move it and its -wal")
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise DatastoreError(f"{path}: {error.strerror}") from error


def _damage(path: Path, size: int) -> str | None:
    """What is wrong with a database file, None for nothing. A damaged file is evidence, so nothing is written."""
    log = path.with_name(f"{path.name}-wal")
    if size == 0:  # new; but with a log it had content once
        return "empty, beside a write-ahead log" if log.exists() and log.stat().st_size else None
    # A process that was killed while it made the file left a transaction, and rolling that back means writing.
    mode = "rw" if path.with_name(f"{path.name}-journal").exists() else "ro"
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=_LOCK_TIMEOUT)
        ) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise DatastoreError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else str(found).replace("\n", " ")
