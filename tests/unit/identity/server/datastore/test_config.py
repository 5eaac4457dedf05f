"""Configurations that are wrong: the error names the key, and tells no password."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.decoding import decode_as
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.identity.config import read_config
from nginx_mesh.identity.server.config import datastore_config
from nginx_mesh.identity.server.datastore import DatastoreConfig, DatastoreError, open_datastore
from nginx_mesh.identity.server.datastore.config import mysql_arguments, postgres_arguments, read_password

SECRET = "hunter2"  # noqa: S105


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"database_type": "oracle"}, 'database_type: "oracle" is not one of mysql, postgres, sqlite3'),
        ({"connection_string": 5}, "connection_string: must be a string, not an integer; put the value in quotes"),
        ({"conection_string": "x"}, "conection_string: unknown field; known are database_type, connection_string,"),
    ],
)
def test_a_key_of_the_wrong_kind_is_named(value: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FieldError) as failure:
        decode_as(DatastoreConfig, value)
    assert str(failure.value).startswith(complaint)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"connection_string": ""}, "connection_string: must be the path of a file, or :memory:"),
        ({"connection_string": "file:x?mode=memory"}, "connection_string: must be the path of a file, or :memory:"),
        ({"connection_string": "a\0b"}, "connection_string: must be the path of a file, or :memory:"),
        ({"password_file": "x"}, "password_file: has no meaning for database_type sqlite3"),
        ({"root_ca_path": "x"}, "root_ca_path: has no meaning for database_type sqlite3"),
        (
            {"database_type": "postgres", "connection_string": f"{SECRET} dbname=x"},
            "connection_string: must be a libpq connection string: postgresql://… or key=value pairs",
        ),
        (
            {"database_type": "postgres", "connection_string": f"password={SECRET} colour=red dbname=x"},
            "connection_string: must be a libpq connection string: postgresql://… or key=value pairs",
        ),
        (
            {"database_type": "postgres", "connection_string": f"password={SECRET} host=db"},
            "connection_string: names no database (dbname)",
        ),
        (
            {"database_type": "postgres", "connection_string": "dbname=x", "client_key_path": "x"},
            "client_key_path: has no meaning for database_type postgres",
        ),
        (
            {
                "database_type": "postgres",
                "connection_string": f"dbname=x password={SECRET}",
                "password_file": "x",
            },
            "password_file: connection_string has a password, too",
        ),
        (
            {"database_type": "mysql", "connection_string": f"mysql://mesh:{SECRET}@db:3306/"},
            "connection_string: must be like user:password@tcp(host:port)/database?tls=true",
        ),
        (
            {"database_type": "mysql", "connection_string": f"mesh:{SECRET}@tcp(db:port)/mesh"},
            "connection_string: must be like user:password@tcp(host:port)/database?tls=true",
        ),
        (
            {"database_type": "mysql", "connection_string": f"mesh:{SECRET}@tcp(db)/mesh?local_infile=1"},
            "connection_string: unknown parameter 'local_infile'; known are parseTime, tls",
        ),
        (
            {"database_type": "mysql", "connection_string": f"mesh:{SECRET}@tcp(db)/mesh?tls=skip-verify"},
            "connection_string: tls must be true or false",
        ),
        (
            {"database_type": "mysql", "connection_string": f"mesh:{SECRET}@tcp(db)/mesh", "password_file": "x"},
            "password_file: connection_string has a password, too",
        ),
        (
            {"database_type": "mysql", "connection_string": "mesh@tcp(db)/mesh?tls=false", "root_ca_path": "x"},
            "root_ca_path: has no meaning with tls=false",
        ),
        (
            {"database_type": "mysql", "connection_string": "mesh@tcp(db)/mesh", "root_ca_path": "/nowhere/ca.pem"},
            "root_ca_path: /nowhere/ca.pem: No such file or directory",
        ),
        (
            {"database_type": "mysql", "connection_string": "mesh@tcp(db)/mesh?tls=true", "client_key_path": "k"},
            "client_key_path: needs client_cert_path",
        ),
        (
            {"database_type": "mysql", "connection_string": "mesh@tcp(db)/x?tls=true", "client_cert_path": __file__},
            f"client_cert_path: {__file__}: ",
        ),
        (
            {"database_type": "mysql", "connection_string": "mesh@tcp(db)/mesh", "password_file": "/nowhere/secret"},
            "password_file: /nowhere/secret: No such file or directory",
        ),
    ],
)
def test_a_value_that_is_wrong_is_named_by_its_key_and_not_told(
    config: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(DatastoreError) as failure:
        open_datastore(DatastoreConfig(**config), tmp_path / "data")
    assert str(failure.value).startswith(complaint)
    assert SECRET not in "".join(traceback.format_exception(failure.value))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("connection_string", "arguments"),
    [
        ("/mesh", {"user": None, "host": "127.0.0.1", "port": 3306}),
        ("me@/mesh", {"user": "me", "host": "127.0.0.1", "port": 3306}),
        ("me:a:b/c@d?e@tcp(db:1)/mesh", {"user": "me", "password": "a:b/c@d?e", "host": "db", "port": 1}),
        ("me:p@tcp([::1]:3307)/mesh", {"user": "me", "password": "p", "host": "::1", "port": 3307}),
        ("me:@unix(/run/my/sql.sock)/mesh?parseTime=true", {"user": "me", "unix_socket": "/run/my/sql.sock"}),
    ],
)
def test_connection_strings_of_mysql_are_read_as_spire_reads_them(
    connection_string: str, arguments: dict[str, Any]
) -> None:
    config = DatastoreConfig(database_type="mysql", connection_string=connection_string)
    assert mysql_arguments(config) == arguments | {"database": "mesh"}


@given(st.text(), st.sampled_from(["postgres", "mysql"]))
def test_any_connection_string_is_read_or_refused(text: str, database_type: str) -> None:
    config = DatastoreConfig(database_type=database_type, connection_string=text)  # type: ignore[arg-type]
    try:
        arguments = (mysql_arguments if database_type == "mysql" else postgres_arguments)(config)
    except DatastoreError as error:
        assert str(error).startswith("connection_string: ")
    else:
        assert arguments.get("database") or arguments.get("dbname")


def test_files_are_relative_to_the_configuration_that_names_them(tmp_path: Path) -> None:
    file = tmp_path / "identity.yaml"
    file.write_text(
        "identity: {datastore: {database_type: mysql, connection_string: mesh@/mesh, password_file: secret,"
        " root_ca_path: /etc/ca.pem, client_cert_path: 5}}"
    )
    assert read_config(file).identity.datastore == {
        "database_type": "mysql",
        "connection_string": "mesh@/mesh",
        "password_file": f"{tmp_path}/secret",
        "root_ca_path": "/etc/ca.pem",
        "client_cert_path": 5,  # decoding complains
    }


def test_the_examples_of_the_guide_are_sound(tmp_path: Path) -> None:
    guide = Path(__file__).parents[5] / "docs/guides/identity-storage.md"
    examples = re.findall(r"^```yaml\n(.*?)^```$", guide.read_text(), re.MULTILINE | re.DOTALL)
    types = []
    for example in examples:
        (tmp_path / "identity.yaml").write_text(example)
        config = datastore_config(read_config(tmp_path / "identity.yaml").identity, MeshSettings())
        types.append(config.database_type)
        if config.database_type == "postgres":
            assert postgres_arguments(config)["dbname"] == "mesh"
        elif config.database_type == "mysql":
            assert mysql_arguments(msgspec.structs.replace(config, root_ca_path=""))["host"] == "db.example.com"
    assert types == ["sqlite3", "postgres", "mysql"]


def test_a_password_file_is_read_without_the_end_of_its_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    for content, password in ((b"p w \n", "p w "), (b"p\r\n", "p"), (b"\xc3\xbc", "ü"), (b"", "")):
        file.write_bytes(content)
        assert read_password(str(file)) == password
    file.write_bytes(b"\xff")
    with pytest.raises(DatastoreError, match=f"password_file: {file}: not UTF-8"):
        read_password(str(file))
