"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    document = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")
    strings = sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql")
    _create(
        "entries",
        sa.Column("entry_id", _text(255), primary_key=True),
        sa.Column("spiffe_id", _text(2048), nullable=False),
        sa.Column("parent_id", _text(2048), nullable=False),
        sa.Column("selectors", strings, nullable=False),
        sa.Column("dns_names", strings, nullable=False),
        sa.Column("x509_ttl", sa.BigInteger, nullable=False),
        sa.Column("jwt_ttl", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    if not sa.inspect(op.get_bind()).get_indexes("entries"):
        op.create_index("ix_entries_parent_id", "entries", ["parent_id"])
    _create(
        "nodes",
        sa.Column("spiffe_id", _text(2048), primary_key=True),
        sa.Column("attestation", _text(64), nullable=False),
        sa.Column("serial", _text(255), nullable=False),
        sa.Column("not_after", sa.BigInteger, nullable=False),
        sa.Column("registrar", sa.Boolean, nullable=False),
        sa.Column("banned", sa.Boolean, nullable=False),
    )
    _create(
        "join_tokens",
        sa.Column("digest", _text(64), primary_key=True),
        sa.Column("agent_id", _text(2048), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("registrar", sa.Boolean, nullable=False),
    )
    _create(
        "bundles",
        sa.Column("trust_domain", _text(255), primary_key=True),
        sa.Column("document", document, nullable=False),
    )
    _create(
        "relationships",
        sa.Column("trust_domain", _text(255), primary_key=True),
        sa.Column("endpoint_url", _text(8192), nullable=False),
        sa.Column("profile", _text(64), nullable=False),
        sa.Column("endpoint_spiffe_id", _text(2048), nullable=False),
    )
    _create(
        "journals",
        sa.Column("server_id", _text(255), primary_key=True),
        sa.Column("journal", document, nullable=False),
    )
    _create(
        "changes",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", _text(16), nullable=False),
        sa.Column("name", _text(255), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    _create(
        "change_counter",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("latest", sa.BigInteger, nullable=False),
        sa.Column("pruned", sa.BigInteger, nullable=False),
    )
    if not op.get_bind().scalar(sa.text("SELECT COUNT(*) FROM change_counter")):
        op.execute("INSERT INTO change_counter (id, latest, pruned) VALUES (1, 0, 0)")


def _text(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(mysql.VARBINARY(length), "mysql")


def _create(name: str, *columns: sa.Column[Any]) -> None:
    """Make a table. MySQL cannot take it back: what a process made that was killed in between is there already."""
    if op.get_context().dialect.name != "mysql" or not sa.inspect(op.get_bind()).has_table(name):
        op.create_table(name, *columns)
