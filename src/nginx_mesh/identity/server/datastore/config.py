"""Which database a datastore is in. The keys are those of SPIRE's sql datastore, and `password_file`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import msgspec

from .base import DatastoreError

_MEMORY: Final = ":memory:"
# Greedy as the Go driver that defined the format: the last slash begins the database, the last @ ends the credentials.
_MYSQL = re.compile(
    r"(?:(?P<user>[^:@]*)(?::(?P<password>.*))?@)?"
    r"(?:tcp(?:\((?P<host>\[[^\]]+\]|[^:()\[\]]+)(?::(?P<port>\d{1,5}))?\))?|unix\((?P<socket>[^()]+)\))?"
    r"/(?P<database>[^/?]+)(?:\?(?P<parameters>[^/]*))?",
    re.DOTALL,
)


class DatastoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the database is. Decode it with `api.decoding.decode_as`; the strings are checked when it is opened.

    `connection_string`: for sqlite3 a path or `:memory:`; for postgres what libpq takes, a URI or `key=value` pairs;
    for mysql (also MariaDB) `user:password@tcp(host:port)/database?tls=true`, or `unix(/path)` instead of `tcp(…)`.
    `password_file` holds the password instead; it is read for each new connection, so that it may change.
    The other paths are about TLS to mysql; for postgres the connection string says it.
    """

    database_type: Literal["sqlite3", "postgres", "mysql"] = "sqlite3"
    connection_string: str = "datastore.sqlite3"
    password_file: str = ""
    root_ca_path: str = ""
    client_cert_path: str = ""
    client_key_path: str = ""

    def __repr__(self) -> str:
        # The connection string may hold a password.
        return f"DatastoreConfig(database_type={self.database_type!r}, connection_string=<redacted>)"

    def __rich_repr__(self) -> Any:
        yield "database_type", self.database_type


IN_MEMORY: Final = DatastoreConfig(connection_string=_MEMORY)
"""A database that ends with the process (`persistentStorage` off)."""


def with_absolute_files(value: dict[str, Any], directory: Path) -> dict[str, Any]:
    """A configuration, not decoded yet, with absolute paths of all files but an SQLite database."""
    paths = ("password_file", "root_ca_path", "client_cert_path", "client_key_path")
    found = {name: str(directory / value[name]) for name in paths if value.get(name) and isinstance(value[name], str)}
    return value | found


def sqlite_path(config: DatastoreConfig, directory: Path) -> Path | None:
    """The file of an SQLite database, None for one in memory. Raises DatastoreError."""
    _refuse(config, "password_file", "root_ca_path", "client_cert_path", "client_key_path")
    if config.connection_string == _MEMORY:
        return None
    if not config.connection_string or "\0" in config.connection_string or config.connection_string.startswith("file:"):
        raise DatastoreError("connection_string: must be the path of a file, or :memory:")
    return directory / config.connection_string


def postgres_arguments(config: DatastoreConfig) -> dict[str, Any]:
    """Arguments of `psycopg.connect`. Raises DatastoreError."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    _refuse(config, "root_ca_path", "client_cert_path", "client_key_path")
    try:
        arguments = dict(conninfo_to_dict(config.connection_string))
    except ProgrammingError:  # which quotes the string, and so perhaps a password
        raise DatastoreError(
            "connection_string: must be a libpq connection string: postgresql://… or key=value pairs"
        ) from None
    if not arguments.get("dbname"):
        raise DatastoreError("connection_string: names no database (dbname)")
    _check_password(config, arguments.get("password"))
    return arguments


def mysql_arguments(config: DatastoreConfig) -> dict[str, Any]:
    """Arguments of `pymysql.connect`. Raises DatastoreError."""
    found = _MYSQL.fullmatch(config.connection_string)
    if found is None:
        raise DatastoreError("connection_string: must be like user:password@tcp(host:port)/database?tls=true")
    parameters = dict(parse_qsl(found["parameters"] or "", keep_blank_values=True))
    parameters.pop("parseTime", None)  # SPIRE wants it of its driver; ours has no such thing
    tls = parameters.pop("tls", "true" if config.root_ca_path else "false")
    if parameters:
        raise DatastoreError(f"connection_string: unknown parameter {min(parameters)!r}; known are parseTime, tls")
    if tls not in ("true", "false"):
        raise DatastoreError("connection_string: tls must be true or false")
    _check_password(config, found["password"])
    arguments: dict[str, Any] = {"user": found["user"] or None, "database": found["database"]}
    if found["password"]:
        arguments["password"] = found["password"]
    if found["socket"]:
        arguments["unix_socket"] = found["socket"]
    else:
        arguments["host"] = (found["host"] or "127.0.0.1").strip("[]")
        arguments["port"] = int(found["port"] or 3306)
    if tls == "true":
        arguments["ssl"] = _tls_context(config)
    else:
        _refuse(config, "root_ca_path", "client_cert_path", "client_key_path", why="with tls=false")
    return arguments


def read_password(path: str) -> str:
    """The password in a file, without the line break at its end. Raises DatastoreError."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(4096).rstrip("\r\n")
    except OSError as error:
        raise DatastoreError(f"password_file: {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DatastoreError(f"password_file: {path}: not UTF-8") from None


def _refuse(config: DatastoreConfig, *keys: str, why: str = "") -> None:
    for key in keys:
        if getattr(config, key):
            raise DatastoreError(f"{key}: has no meaning {why or f'for database_type {config.database_type}'}")


def _check_password(config: DatastoreConfig, password: object) -> None:
    if config.password_file and password:
        raise DatastoreError("password_file: connection_string has a password, too")


def _tls_context(config: DatastoreConfig) -> Any:
    import ssl

    key = "root_ca_path"
    try:
        context = ssl.create_default_context(cafile=config.root_ca_path or None)
        key = "client_cert_path"
        if config.client_cert_path:
            context.load_cert_chain(config.client_cert_path, config.client_key_path or None)
        elif config.client_key_path:
            raise DatastoreError("client_key_path: needs client_cert_path")
    except OSError as error:  # ssl.SSLError is one
        raise DatastoreError(f"{key}: {getattr(config, key)}: {error.strerror or error}") from error
    return context
