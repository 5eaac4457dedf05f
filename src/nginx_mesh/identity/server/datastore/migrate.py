"""Brings the schema up to date, by one of the processes that open a database at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from .base import DatastoreError
from .schema import VERSION_TABLE

_LOCK = "nginx_mesh_schema"
_WAIT = 60  # seconds
_alembic = threading.Lock()  # Alembic has one context for the whole process


def migrate(engine: Engine, where: str) -> None:
    """Bring the schema up to date. Raises DatastoreError when it is newer than what this program knows."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with _locked(engine) as connection:
        found = set(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads())
        if unknown := found - known:
            raise DatastoreError(
                f"{where}: its schema ({min(unknown)}) is newer than this program, which knows {max(known)}"
            )
        if found != set(script.get_heads()):
            config.attributes["connection"] = connection
            with _alembic:
                command.upgrade(config, "head")


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """A transaction that only one process at a time is in."""
    with engine.connect().execution_options(writes=True) as connection:
        if engine.dialect.name == "mysql":
            with _mysql_lock(connection), connection.begin():
                yield connection
            return
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{_WAIT}s"})
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:lock))"), {"lock": _LOCK})
            yield connection


@contextmanager
def _mysql_lock(connection: Connection) -> Iterator[None]:
    """Hold a lock of the connection, because statements that define tables commit the transaction that they are in.

    It is held until the transaction within is committed: whoever gets the lock next has to see the new version.
    """
    name = {"lock": _LOCK, "wait": _WAIT}
    if connection.scalar(text("SELECT GET_LOCK(CONCAT(:lock, MD5(DATABASE())), :wait)"), name) != 1:
        raise DatastoreError(f"another process is changing the schema for {_WAIT} s already")
    connection.rollback()  # ends the transaction that the query began; the lock stays
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.execute(text("SELECT RELEASE_LOCK(CONCAT(:lock, MD5(DATABASE())))"), {"lock": _LOCK})
