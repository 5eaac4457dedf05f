"""The tables of a datastore. Columns have the names of the fields that they store. A change here needs a migration."""

from __future__ import annotations

from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

VERSION_TABLE: Final = "nginx_mesh_schema"


class Exact(TypeDecorator[str]):
    """Text of at most `length` bytes that every backend compares byte by byte, and refuses when it is longer."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """MySQL's text compares without regard to case, and to spaces at the end."""
        return mysql.VARBINARY(self.length) if dialect.name == "mysql" else String(self.length)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Check what goes to the database."""
        if value is None:
            return None
        encoded = value.encode()
        if len(encoded) > self.length:
            raise ValueError(f"{value[:60]!r}… has {len(encoded)} bytes, at most {self.length} can be kept")
        if b"\0" in encoded:
            raise ValueError(f"{value[:60]!r} has a NUL character")
        return encoded if dialect.name == "mysql" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """What comes back is text again."""
        return value.decode() if isinstance(value, bytes) else value


class Strings(TypeDecorator[tuple[str, ...]]):
    """A tuple of strings, as a JSON array."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """MySQL's TEXT ends at 64 KiB."""
        return mysql.MEDIUMTEXT(charset="utf8mb4") if dialect.name == "mysql" else Text()

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str:
        """Encode."""
        return orjson.dumps(value or ()).decode() if value else "[]"

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...]:
        """Decode."""
        return tuple(orjson.loads(value)) if value and value != "[]" else ()


def _document() -> TypeEngine[bytes]:
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")


metadata = MetaData()

entries = Table(
    "entries",
    metadata,
    Column("entry_id", Exact(255), primary_key=True),
    Column("spiffe_id", Exact(2048), nullable=False),
    Column("parent_id", Exact(2048), nullable=False, index=True),
    Column("selectors", Strings(), nullable=False),
    Column("dns_names", Strings(), nullable=False),
    Column("x509_ttl", BigInteger, nullable=False),
    Column("jwt_ttl", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("spiffe_id", Exact(2048), primary_key=True),
    Column("attestation", Exact(64), nullable=False),
    Column("serial", Exact(255), nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("registrar", Boolean, nullable=False),
    Column("banned", Boolean, nullable=False),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("digest", Exact(64), primary_key=True),
    Column("agent_id", Exact(2048), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("registrar", Boolean, nullable=False),
)

bundles = Table(
    "bundles",
    metadata,
    Column("trust_domain", Exact(255), primary_key=True),
    Column("document", _document(), nullable=False),
)

relationships = Table(
    "relationships",
    metadata,
    Column("trust_domain", Exact(255), primary_key=True),
    Column("endpoint_url", Exact(8192), nullable=False),
    Column("profile", Exact(64), nullable=False),
    Column("endpoint_spiffe_id", Exact(2048), nullable=False),
)

ca_records = Table(
    "journals",  # the names in the database are those of the first version
    metadata,
    Column("server_id", Exact(255), primary_key=True),
    Column("journal", _document(), nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Exact(16), nullable=False),
    Column("name", Exact(255), nullable=False),
    Column("at", BigInteger, nullable=False),
)

change_counter = Table(
    "change_counter",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("latest", BigInteger, nullable=False),
    Column("pruned", BigInteger, nullable=False),
)
"""One row, which every writer of `changes` locks: the ID given last, and the last of those that were forgotten."""
