"""The datastore in an SQL database: SQLite, PostgreSQL, MySQL or MariaDB."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client import Counter
from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Insert,
    Select,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from nginx_mesh.identity.common.entry import RegistrationEntry

from . import schema
from .base import AttestedNode, Changes, DatastoreError, FederationRelationship, JoinToken
from .config import DatastoreConfig
from .engine import opening
from .migrate import migrate

T = TypeVar("T")

_errors = Counter("nginx_mesh_datastore_errors_total", "Transactions of the datastore that failed.")

_KEEP_CHANGES: Final = 24 * 3600
_PRUNE_EVERY: Final = 3600
_CHUNK: Final = 500  # IDs in one statement


class SqlDatastore:
    """A Datastore in an SQL database.

    Raises DatastoreError when the database cannot be opened, is damaged, or is of a newer version.
    """

    def __init__(self, config: DatastoreConfig, directory: Path, clock: Callable[[], float]) -> None:
        self._where = f"{config.database_type} datastore"
        self._clock = clock
        self._pruned_at = -float("inf")
        self._closed = False
        with self._reported(), opening(config, directory) as (self._engine, self._where):
            try:
                migrate(self._engine, self._where)
            except BaseException:
                self._engine.dispose()
                raise

    def __str__(self) -> str:
        return self._where

    def close(self) -> None:
        """See Datastore."""
        self._closed = True
        self._engine.dispose()

    def entries(self, parent_id: str | None = None) -> list[RegistrationEntry]:
        """See Datastore."""
        query = _select(schema.entries, RegistrationEntry)
        if parent_id is not None:
            query = query.where(schema.entries.c.parent_id == parent_id)
        with self._reading() as connection:
            return [RegistrationEntry(*row) for row in connection.execute(query)]

    def entries_by_id(self, entry_ids: Sequence[str]) -> list[RegistrationEntry]:
        """See Datastore."""
        query = _select(schema.entries, RegistrationEntry)
        with self._reading() as connection:
            return [
                RegistrationEntry(*row)
                for some in _chunks(dict.fromkeys(entry_ids))
                for row in connection.execute(query.where(schema.entries.c.entry_id.in_(some)))
            ]

    def put_entries(self, entries: Iterable[RegistrationEntry]) -> None:
        """See Datastore."""
        rows = [_row(entry) for entry in entries]
        if not rows:
            return
        with self._changing() as changing:
            changing.connection.execute(self._upsert(schema.entries, keep="created_at"), rows)
            changing.entries(row["entry_id"] for row in rows)

    def delete_entries(self, entry_ids: Iterable[str]) -> None:
        """See Datastore."""
        with self._changing() as changing:
            for some in _chunks(dict.fromkeys(entry_ids)):
                changing.delete_entries(schema.entries.c.entry_id.in_(some))

    def changes(self, cursor: int) -> Changes:
        """See Datastore."""
        table, counter = schema.changes, schema.change_counter
        with self._reading() as connection:
            rows = connection.execute(
                select(table.c.id, table.c.kind, table.c.name).where(table.c.id > cursor).order_by(table.c.id)
            ).all()
            # This is read last: if nothing was forgotten by now, nothing was when the changes were read.
            latest, pruned = connection.execute(select(counter.c.latest, counter.c.pruned)).one()
        if not pruned <= cursor <= latest:
            return Changes(latest, complete=False)
        names = {
            kind: tuple(dict.fromkeys(row.name for row in rows if row.kind == kind)) for kind in ("entry", "bundle")
        }
        return Changes(rows[-1].id if rows else cursor, names["entry"], names["bundle"])

    def nodes(self) -> list[AttestedNode]:
        """See Datastore."""
        with self._reading() as connection:
            return [AttestedNode(*row) for row in connection.execute(_select(schema.nodes, AttestedNode))]

    def node(self, spiffe_id: str) -> AttestedNode | None:
        """See Datastore."""
        query = _select(schema.nodes, AttestedNode).where(schema.nodes.c.spiffe_id == spiffe_id)
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else AttestedNode(*row)

    def put_node(self, node: AttestedNode) -> None:
        """See Datastore."""
        with self._writing() as connection:
            connection.execute(self._upsert(schema.nodes, keep="banned"), _row(node))

    def renew_node(self, spiffe_id: str, serial: str, not_after: int) -> bool:
        """See Datastore."""
        return self._update_node(
            (schema.nodes.c.spiffe_id == spiffe_id) & ~schema.nodes.c.banned, serial=serial, not_after=not_after
        )

    def ban_node(self, spiffe_id: str, banned: bool) -> bool:
        """See Datastore."""
        return self._update_node(schema.nodes.c.spiffe_id == spiffe_id, banned=banned)

    def delete_node(self, spiffe_id: str) -> None:
        """See Datastore."""
        with self._changing() as changing:
            changing.delete_entries(schema.entries.c.parent_id == spiffe_id)
            changing.connection.execute(delete(schema.nodes).where(schema.nodes.c.spiffe_id == spiffe_id))

    def put_join_token(self, token: JoinToken) -> None:
        """See Datastore."""
        table = schema.join_tokens
        with self._writing() as connection:
            connection.execute(delete(table).where(table.c.expires_at <= int(self._clock())))
            connection.execute(self._upsert(table), _row(token))

    def take_join_token(self, digest: str, now: int) -> JoinToken | None:
        """See Datastore."""
        table = schema.join_tokens
        with self._writing() as connection:
            row = connection.execute(_select(table, JoinToken).where(table.c.digest == digest)).one_or_none()
            # Of several transactions that read the token, one deletes it.
            if row is None or not _deleted(connection, delete(table).where(table.c.digest == digest)):
                return None
        token = JoinToken(*row)
        return token if now < token.expires_at else None

    def bundle(self, trust_domain: str) -> bytes | None:
        """See Datastore."""
        table = schema.bundles
        return self._document(select(table.c.document).where(table.c.trust_domain == trust_domain))

    def bundles(self) -> dict[str, bytes]:
        """See Datastore."""
        with self._reading() as connection:
            found = connection.execute(select(schema.bundles.c.trust_domain, schema.bundles.c.document)).all()
        return {row.trust_domain: row.document for row in found}

    def put_bundle(self, trust_domain: str, document: bytes, expected: bytes | None) -> bool:
        """See Datastore."""
        table = schema.bundles
        with self._changing() as changing:
            present = changing.connection.scalar(select(table.c.document).where(table.c.trust_domain == trust_domain))
            if present != expected:
                return False
            row = {"trust_domain": trust_domain, "document": document}
            changing.connection.execute(self._upsert(table), row)
            changing.bundle(trust_domain)
        return True

    def relationships(self) -> list[FederationRelationship]:
        """See Datastore."""
        query = _select(schema.relationships, FederationRelationship)
        with self._reading() as connection:
            return [FederationRelationship(*row) for row in connection.execute(query)]

    def put_relationship(self, relationship: FederationRelationship) -> None:
        """See Datastore."""
        with self._writing() as connection:
            connection.execute(self._upsert(schema.relationships), _row(relationship))

    def delete_relationship(self, trust_domain: str) -> None:
        """See Datastore."""
        table = schema.relationships
        with self._changing() as changing:
            changing.connection.execute(delete(table).where(table.c.trust_domain == trust_domain))
            changing.delete_bundle(trust_domain)

    def ca_records(self, server_id: str) -> bytes | None:
        """See Datastore."""
        table = schema.ca_records
        return self._document(select(table.c.journal).where(table.c.server_id == server_id))

    def put_ca_records(self, server_id: str, records: bytes) -> None:
        """See Datastore."""
        with self._writing() as connection:
            connection.execute(self._upsert(schema.ca_records), {"server_id": server_id, "journal": records})

    def _update_node(self, which: ColumnElement[bool], **values: object) -> bool:
        with self._writing() as connection:
            return connection.execute(update(schema.nodes).where(which).values(values)).rowcount > 0

    def _document(self, query: Select[bytes]) -> bytes | None:
        with self._reading() as connection:
            return connection.scalar(query)

    def _upsert(self, table: Table, keep: str = "") -> Insert:
        """Insert, or replace all columns but `keep`."""
        names = [column.name for column in table.columns if not column.primary_key and column.name != keep]
        if self._engine.dialect.name == "mysql":
            into = mysql.insert(table)
            return into.on_duplicate_key_update({name: into.inserted[name] for name in names})
        make = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        statement = make(table)
        replaced = {name: statement.excluded[name] for name in names}
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=replaced)

    @contextmanager
    def _transaction(self, **options: bool) -> Iterator[Connection]:
        with self._reported(), self._engine.connect().execution_options(**options) as connection, connection.begin():
            if self._engine.dialect.name == "postgresql":
                connection.execute(_POSTGRES_LIMITS)
            yield connection

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._transaction()

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._transaction(writes=True)

    @contextmanager
    def _changing(self) -> Iterator[_Changing]:
        """A transaction that changes entries or bundles. No other server is in such a one at the same time."""
        table, counter = schema.changes, schema.change_counter
        with self._writing() as connection:
            latest = connection.execute(select(counter.c.latest).with_for_update()).scalar_one()
            changing = _Changing(connection)
            yield changing
            now = int(self._clock())
            touched = [
                {"id": latest + number, "kind": kind, "name": name, "at": now}
                for number, (kind, name) in enumerate(changing.touched, 1)
            ]
            if touched:
                connection.execute(insert(table), touched)
                connection.execute(update(counter).values(latest=latest + len(touched)))
            if now >= self._pruned_at + _PRUNE_EVERY:
                self._pruned_at = now
                old = connection.scalar(select(func.max(table.c.id)).where(table.c.at < now - _KEEP_CHANGES))
                if old is not None:
                    connection.execute(delete(table).where(table.c.id <= old))
                    connection.execute(update(counter).values(pruned=old))

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Within, errors of the database become DatastoreErrors."""
        if self._closed:
            raise DatastoreError(f"{self._where}: closed")
        with _errors.count_exceptions(DatastoreError):
            try:
                yield
            except DBAPIError as error:
                raise DatastoreError(f"{self._where}: {_reason(error.orig)}") from error
            except StatementError as error:  # a value that no column takes
                raise DatastoreError(f"{self._where}: {error.orig}") from error
            except (SQLAlchemyError, OverflowError) as error:
                raise DatastoreError(f"{self._where}: {error}") from error


_POSTGRES_LIMITS: Final = text(
    "SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '30s', true),"
    " set_config('idle_in_transaction_session_timeout', '10s', true)"
)
"""Limits of this transaction only, because poolers lend a session to one transaction after the other."""


class _Changing:
    """A transaction whose changes all servers learn of.

    Every such transaction locks the counter first, so that the IDs of changes are given and committed in one order.
    Whoever has read one has therefore seen all below it, which the sequences of a database do not promise.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.touched: dict[tuple[str, str], None] = {}

    def entries(self, entry_ids: Iterable[str]) -> None:
        self.touched.update(dict.fromkeys(("entry", entry_id) for entry_id in entry_ids))

    def bundle(self, trust_domain: str) -> None:
        self.touched["bundle", trust_domain] = None

    def delete_entries(self, which: Any) -> None:
        self.entries(self.connection.scalars(select(schema.entries.c.entry_id).where(which)))
        self.connection.execute(delete(schema.entries).where(which))

    def delete_bundle(self, trust_domain: str) -> None:
        if _deleted(self.connection, delete(schema.bundles).where(schema.bundles.c.trust_domain == trust_domain)):
            self.bundle(trust_domain)


def _select(table: Table, record: type[Any]) -> Select[Any]:
    return select(*(table.c[field.name] for field in fields(record)))


def _row(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _deleted(connection: Connection, statement: Delete) -> bool:
    return connection.execute(statement).rowcount > 0


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, _CHUNK)):
        yield some


def _reason(error: BaseException | None) -> str:
    """What the database said, in one line. Drivers put codes before it."""
    said = error.args[-1] if error is not None and error.args else error
    return " ".join(str(said).split())
