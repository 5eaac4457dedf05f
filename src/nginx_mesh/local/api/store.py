"""The objects of one local mesh, kept in SQLite.

An object is a plain dict in the shape of the Kubernetes API. All objects are also held in memory, so that reading one
costs a dictionary look-up. SQLite makes them survive the process, however it ends (WAL, one transaction per change).
The dicts that the store returns are shared: a caller changes a copy, and puts that.
"""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NamedTuple

import orjson

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource, key_of
from nginx_mesh.api.times import rfc3339

from .oldstatus import with_current_status

log = logging.getLogger(__name__)

Outcome = Literal["created", "configured", "unchanged"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
# A change of these fields does not change the object's generation.
_NOT_SPEC = ("metadata", "status")


class StoreError(Exception):
    """The database cannot be read or written."""


class ObjectChange(NamedTuple):
    """A change of one object. `old` is None when it was created, `new` when it was removed."""

    key: ObjectKey
    old: Resource | None
    new: Resource | None


class Transaction:
    """Changes that are made together. Reads see the changes so far."""

    def __init__(self, store: Store, now: float) -> None:
        self._store = store
        self._now = now
        self.objects: dict[ObjectKey, Resource | None] = {}
        self.facts: dict[str, str] = {}

    def get(self, key: ObjectKey) -> Resource | None:
        """The object, or None."""
        return self.objects[key] if key in self.objects else self._store.get(key)

    def list(self, kind: str | None = None, namespace: str | None = None) -> list[Resource]:
        """Like `Store.list`."""
        found = {key_of(resource): resource for resource in self._store.list(kind, namespace)}
        for key, resource in self.objects.items():
            if kind in (None, key.kind) and namespace in (None, key.namespace):
                if resource is None:
                    found.pop(key, None)
                else:
                    found[key] = resource
        return [found[key] for key in sorted(found)]

    def put(self, resource: Resource) -> Outcome:
        """Create the object, or replace all of it but the uid, versions and creation time, which the store sets."""
        key = key_of(resource)
        old = self.get(key)
        metadata = dict(resource["metadata"])
        if old is None:
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": rfc3339(self._now), "generation": 1}
        else:
            kept = old["metadata"]
            metadata |= {name: kept[name] for name in ("uid", "creationTimestamp", "generation", "resourceVersion")}
            if metadata == kept and without(resource, "metadata") == without(old, "metadata"):
                return "unchanged"
            if without(resource, *_NOT_SPEC) != without(old, *_NOT_SPEC):
                metadata["generation"] += 1
        metadata["resourceVersion"] = str(self._store.next_version())
        self.objects[key] = {**resource, "metadata": metadata}
        return "created" if old is None else "configured"

    def remove(self, key: ObjectKey) -> None:
        """Remove the object at once."""
        self.objects[key] = None

    def fact(self, name: str) -> str | None:
        """Like `Store.fact`."""
        return self.facts.get(name, self._store.fact(name))

    def set_fact(self, name: str, value: str) -> None:
        """Store a value that is not an object, under a name."""
        self.facts[name] = value


class Store:
    """The database at `path`, which is created (mode 0600) if it does not exist. Raises StoreError."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._watchers: list[Callable[[ObjectChange], None]] = []
        self._undelivered: deque[ObjectChange] = deque()
        self._delivering = False
        self._objects: dict[str, dict[ObjectKey, Resource]] = {}
        self._facts: dict[str, str] = {}
        self._unwritten: dict[ObjectKey, Resource | None] = {}
        self._failure = ""
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            # Every commit reaches the operating system: enough to survive kill -9, without an fsync for each.
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)
            for (data,) in self._db.execute("SELECT data FROM objects"):
                resource = orjson.loads(data)
                self._keep(key_of(resource), with_current_status(resource))
            self._facts.update(self._db.execute("SELECT name, value FROM facts"))
        except (OSError, sqlite3.Error, orjson.JSONDecodeError, KeyError) as error:
            raise StoreError(f"cannot open {path}: {error}") from error
        self._version = int(self._facts.get("resourceVersion", "0"))

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def problem(self) -> str:
        """Why changes cannot be written, "" when they can. After a failure it tries again, with an unchanged object."""
        if self._failure:
            unchanged = dict(islice(chain.from_iterable(table.items() for table in self._objects.values()), 1))
            try:
                self._write({**unchanged, **self._unwritten}, {"resourceVersion": str(self._version)})
                self._unwritten.clear()
            except StoreError:
                pass  # `_write` has set `_failure`
        return self._failure

    def next_version(self) -> int:
        """A resource version that no object has had."""
        self._version += 1
        return self._version

    def fact(self, name: str) -> str | None:
        """The value that `Transaction.set_fact` stored, or None."""
        return self._facts.get(name)

    def get(self, key: ObjectKey) -> Resource | None:
        """The object, or None."""
        return self._objects.get(key.kind, {}).get(key)

    def list(self, kind: str | None = None, namespace: str | None = None) -> list[Resource]:
        """Objects of one kind or all, of one namespace or all, sorted by kind, namespace and name."""
        tables = self._objects.values() if kind is None else [self._objects.get(kind, {})]
        found = [item for table in tables for item in table.items() if namespace in (None, item[0].namespace)]
        return [resource for _, resource in sorted(found, key=lambda item: item[0])]

    async def write(self, statuses: Mapping[ObjectKey, Resource]) -> None:
        """Store these statuses in one transaction, as `control.interfaces.StatusWriter`.

        They are in force at once even if the disk is full.
        """
        with self.transaction(durable=False) as tx:
            for key, status in statuses.items():
                if (resource := tx.get(key)) is not None:
                    tx.put({**resource, "status": status})

    def watch(self, callback: Callable[[ObjectChange], None]) -> None:
        """Call a function after every commit, once per changed object and in the order of the changes."""
        self._watchers.append(callback)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Transaction]:
        """Make the changes of the block when it ends, and tell the watchers. When it raises, nothing has changed.

        Changes that are not `durable` are in force at once even if the disk is full; they are written as soon as
        possible.
        """
        transaction = Transaction(self, self._clock())
        yield transaction
        if transaction.objects or transaction.facts:
            self._commit(transaction, durable)

    def _commit(self, transaction: Transaction, durable: bool) -> None:
        facts = {**transaction.facts, "resourceVersion": str(self._version)}
        try:
            self._write({**self._unwritten, **transaction.objects}, facts)
            self._unwritten.clear()
        except StoreError as error:
            if durable:
                raise
            log.warning("%s; kept in memory for now", error)
            self._unwritten |= transaction.objects
        self._facts |= facts
        for key, resource in transaction.objects.items():
            old = self.get(key)
            self._keep(key, resource)
            if old is not None or resource is not None:
                self._undelivered.append(ObjectChange(key, old, resource))
        self._deliver()

    def _write(self, objects: dict[ObjectKey, Resource | None], facts: dict[str, str]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for key, resource in objects.items():
                row = (key.kind, key.namespace, key.name)
                if resource is None:
                    self._db.execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", row)
                else:
                    self._db.execute(
                        "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (*row, orjson.dumps(resource))
                    )
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
            self._db.execute("COMMIT")
            self._failure = ""
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._failure = f"cannot write {self._path}: {error}"
            raise StoreError(self._failure) from error

    def _keep(self, key: ObjectKey, resource: Resource | None) -> None:
        table = self._objects.setdefault(key.kind, {})
        if resource is None:
            table.pop(key, None)
        else:
            table[key] = resource

    def _deliver(self) -> None:
        # A watcher may itself change objects. Those changes are delivered after the present ones.
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._undelivered:
                change = self._undelivered.popleft()
                for callback in self._watchers:
                    callback(change)
        finally:
            self._delivering = False


def without(resource: Resource, *fields: str) -> Resource:
    """A copy of a mapping without some of its fields."""
    return {name: value for name, value in resource.items() if name not in fields}
