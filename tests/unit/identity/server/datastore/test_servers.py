"""What concerns databases that are shared: schemas, several servers at once, failures, credentials, TLS."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from nginx_mesh.identity.server.datastore import (
    IN_MEMORY,
    Datastore,
    DatastoreConfig,
    DatastoreError,
    open_datastore,
    schema,
)
from nginx_mesh.identity.server.datastore import sql as sql_module
from nginx_mesh.identity.server.datastore.base import Changes
from nginx_mesh.identity.server.datastore.engine import opening
from nginx_mesh.identity.server.datastore.schema import VERSION_TABLE, metadata
from nginx_mesh.identity.server.datastore.sql import SqlDatastore
from tests.eventually import wait_until

from .conftest import Opener, Servers
from .servers import PASSWORD, USER, MariaDbServer, PostgresServer
from .test_contract import entry, node

shared = pytest.mark.parametrize("backend", ["sqlite3", "postgres", "mysql"])
remote = pytest.mark.parametrize("backend", ["postgres", "mysql"])

# Opens a datastore at the time it is told, and registers itself.
SERVER = """
import json, sys, time
from pathlib import Path
from nginx_mesh.identity.server.datastore import DatastoreConfig, open_datastore
from nginx_mesh.identity.common.entry import RegistrationEntry
name, config, directory = json.load(sys.stdin)
import nginx_mesh.identity.server.datastore.sql
print("ready", flush=True)
while not Path(directory, "go").exists():
    time.sleep(0.001)
store = open_datastore(DatastoreConfig(**config), Path(directory, "data"))
store.put_entries([RegistrationEntry(name, "spiffe://a/b", "spiffe://a/c")])
store.close()
"""


def run_sql(store: Datastore, *statements: str) -> None:
    assert isinstance(store, SqlDatastore)
    with store._engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def everything(error: BaseException) -> str:
    """All that could get into a log."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_migrations_make_the_tables_that_the_code_uses(
    backend: str, new_config: DatastoreConfig, tmp_path: Path
) -> None:
    store = open_datastore(new_config, tmp_path / "data")
    assert isinstance(store, SqlDatastore)
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    store.close()


@shared
def test_servers_that_start_together_make_the_schema_once(
    backend: str, new_config: DatastoreConfig, tmp_path: Path
) -> None:
    servers = [subprocess.Popen([sys.executable, "-c", SERVER], stdin=-1, stdout=-1, stderr=-1) for _ in range(4)]
    try:
        for number, server in enumerate(servers):
            assert server.stdin is not None
            server.stdin.write(
                json.dumps([f"server-{number}", msgspec.to_builtins(new_config), str(tmp_path)]).encode()
            )
            server.stdin.close()
            server.stdin = None
        for server in servers:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
        (tmp_path / "go").touch()
        for server in servers:
            _, errors = server.communicate(timeout=120)
            assert (server.returncode, errors) == (0, b"")
    finally:
        for server in servers:
            server.kill()
            server.wait()
    store = open_datastore(new_config, tmp_path / "data")
    assert sorted(found.entry_id for found in store.entries()) == [f"server-{number}" for number in range(4)]
    store.close()


@shared
def test_a_newer_schema_is_refused_and_left_as_it_is(backend: str, new_config: DatastoreConfig, tmp_path: Path) -> None:
    store = open_datastore(new_config, tmp_path / "data")
    store.put_entries([entry("kept")])
    run_sql(store, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
    store.close()
    with pytest.raises(DatastoreError, match=r"datastore .*: its schema .9999. is newer than this program"):
        open_datastore(new_config, tmp_path / "data")
    with opening(new_config, tmp_path / "data") as (engine, _):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")  # noqa: S608
        engine.dispose()
    store = open_datastore(new_config, tmp_path / "data")
    assert store.entries() == [entry("kept")]
    store.close()


@pytest.mark.parametrize("backend", ["mysql"])
def test_making_the_schema_goes_on_where_a_killed_server_left_it(
    backend: str, new_config: DatastoreConfig, tmp_path: Path
) -> None:
    store = open_datastore(new_config, tmp_path / "data")
    run_sql(
        store,
        f"DELETE FROM {VERSION_TABLE}",  # noqa: S608
        "DROP INDEX ix_entries_parent_id ON entries",
        "DROP TABLE relationships",
        "DELETE FROM change_counter",
    )
    store.close()
    store = open_datastore(new_config, tmp_path / "data")
    assert isinstance(store, SqlDatastore)
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    store.put_entries([entry("a")])
    assert store.changes(0).entries == ("a",)
    store.close()


@shared
def test_changes_are_numbered_in_the_order_in_which_they_can_be_seen(backend: str, another: Opener) -> None:
    slow, fast, reader = another(), another(), another()
    assert isinstance(slow, SqlDatastore)
    quick = threading.Thread(target=fast.put_entries, args=([entry("second")],))
    with slow._changing() as changing:  # a server that takes its time between the numbers and the commit
        changing.entries(["first"])
        quick.start()
        quick.join(timeout=0.5)
        assert quick.is_alive()
        assert reader.changes(0) == Changes(0)
    quick.join()
    assert reader.changes(0).entries == ("first", "second")


@remote
def test_it_goes_on_after_its_server_was_restarted(backend: str, servers: Servers, another: Opener) -> None:
    store, server = another(), servers(backend)
    store.put_entries([entry("a")])
    server.restart()
    assert store.entries() == [entry("a")]  # with a connection that it held before
    server.stop()
    try:
        for use in (store.entries, lambda: store.put_entries([entry("b")])):
            before = time.monotonic()
            with pytest.raises(DatastoreError, match=f"{backend} datastore shared at {server.directory}"):
                use()
            assert time.monotonic() - before < 30
    finally:
        server.start()
    store.put_entries([entry("c")])
    assert {found.entry_id for found in store.entries()} == {"a", "c"}


@remote
def test_a_connection_that_breaks_in_a_transaction_leaves_nothing_half_done(
    backend: str, servers: Servers, another: Opener
) -> None:
    store, server = another(), servers(backend)
    assert isinstance(store, SqlDatastore)
    with pytest.raises(DatastoreError), store._changing() as changing:
        changing.connection.execute(store._upsert(schema.nodes), sql_module._row(node("half")))
        changing.entries(["half"])
        server.restart()
    assert (store.nodes(), store.changes(0)) == ([], Changes(0))
    store.put_node(node("whole"))
    assert store.nodes() == [node("whole")]


def test_a_server_that_hangs_does_not_hold_up_others_for_ever(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = servers("postgres").database("hanging")
    hanging, store = (open_datastore(config, tmp_path) for _ in range(2))
    limits = str(sql_module._POSTGRES_LIMITS).replace("'lock_timeout', '10s'", "'lock_timeout', '200ms'")
    limits = limits.replace(
        "'idle_in_transaction_session_timeout', '10s'", "'idle_in_transaction_session_timeout', '2s'"
    )
    monkeypatch.setattr(sql_module, "_POSTGRES_LIMITS", text(limits))
    assert isinstance(hanging, SqlDatastore)
    with pytest.raises(DatastoreError, match="postgres datastore hanging"), hanging._changing() as changing:
        changing.entries(["never"])
        with pytest.raises(DatastoreError, match="lock timeout"):
            store.put_entries([entry("a")])
        store.put_ca_records("server", b"1")  # what takes no turn does not wait
        wait_until(partial(succeeds, partial(store.put_entries, [entry("a")])), "entries can be written", 60)
    assert store.changes(0).entries == ("a",)
    with hanging._writing() as connection:
        connection.execute(text("LOCK TABLE nodes"))
        with pytest.raises(DatastoreError, match="lock timeout"):
            store.nodes()
    for each in (hanging, store):
        each.close()
    servers("postgres").drop("hanging")


def succeeds(task: Callable[[], object]) -> bool:
    try:
        task()
    except DatastoreError:
        return False
    return True


@pytest.fixture
def wrong(backend: str, config: DatastoreConfig) -> DatastoreConfig:
    """`config` with a password that is wrong."""
    secret = PASSWORD if backend == "mysql" else PASSWORD.replace("'", "\\'")
    return msgspec.structs.replace(config, connection_string=config.connection_string.replace(secret, "hunter2"))


@remote
def test_a_wrong_password_is_an_error_that_does_not_tell_it(
    backend: str, wrong: DatastoreConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DatastoreError, match=r"datastore shared at .*(?i:password)") as failure:
        open_datastore(wrong, tmp_path)
    assert "hunter2" in wrong.connection_string
    for shown in (everything(failure.value), caplog.text, repr(wrong), str(wrong), repr([*wrong.__rich_repr__()])):
        assert "hunter2" not in shown


@remote
def test_no_secret_is_in_logs_when_all_goes_well(
    backend: str, config: DatastoreConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = open_datastore(config, tmp_path)
    store.put_ca_records("server", b"ca-records-content")
    assert isinstance(store, SqlDatastore)
    for shown in (caplog.text, str(store), repr(store._engine), repr(config)):
        assert PASSWORD not in shown
        assert "ca-records-content" not in shown
    store.close()


@remote
def test_the_password_may_be_in_a_file_and_change(
    backend: str, servers: Servers, wrong: DatastoreConfig, tmp_path: Path
) -> None:
    file, server = tmp_path / "password", servers(backend)
    with_file = msgspec.structs.replace(
        wrong,
        connection_string=wrong.connection_string.replace(":hunter2@", "@").replace("password='hunter2'", ""),
        password_file=str(file),
    )
    with pytest.raises(DatastoreError, match=f"password_file: {file}: No such file"):
        open_datastore(with_file, tmp_path)
    file.write_text(f"{PASSWORD}\n")
    store = open_datastore(with_file, tmp_path)
    file.write_text("old")
    server.restart()
    with pytest.raises(DatastoreError, match=r"(?i)password"):
        store.nodes()
    file.write_text(PASSWORD)
    assert store.nodes() == []
    file.unlink()
    server.restart()
    with pytest.raises(DatastoreError, match=r"password_file: .*No such file"):
        store.nodes()
    store.close()


def test_a_database_that_is_not_there_is_an_error_that_names_it(servers: Servers, tmp_path: Path) -> None:
    for backend in ("postgres", "mysql"):
        config = servers(backend).database("shared")
        missing = msgspec.structs.replace(
            config, connection_string=config.connection_string.replace("shared", "missing")
        )
        with pytest.raises(DatastoreError, match=f"{backend} datastore missing at .*missing"):
            open_datastore(missing, tmp_path)


@pytest.mark.parametrize(
    ("database_type", "connection_string"),
    [("postgres", "postgresql://mesh:hunter2@127.0.0.1:1/mesh"), ("mysql", "mesh:hunter2@tcp(127.0.0.1:1)/mesh")],
)
def test_a_server_that_is_not_there_is_an_error_that_names_it(
    database_type: str, connection_string: str, tmp_path: Path
) -> None:
    config = msgspec.convert({"database_type": database_type, "connection_string": connection_string}, DatastoreConfig)
    with pytest.raises(DatastoreError, match=f"{database_type} datastore mesh at 127.0.0.1:1: .*refused") as failure:
        open_datastore(config, tmp_path)
    assert "hunter2" not in everything(failure.value)


class TestTls:
    @pytest.fixture
    def server(self, servers: Servers) -> MariaDbServer:
        server = servers("mysql")
        assert isinstance(server, MariaDbServer)
        return server

    @pytest.fixture
    def tls_config(self, server: MariaDbServer) -> Iterator[DatastoreConfig]:
        server.database("tls")
        yield DatastoreConfig(
            database_type="mysql",
            connection_string=f"{USER}:{PASSWORD}@tcp(127.0.0.1:{server.port})/tls",
            root_ca_path=str(server.authority),
        )
        server.drop("tls")

    def test_a_root_ca_means_tls_to_the_server_that_it_vouches_for(
        self, tls_config: DatastoreConfig, tmp_path: Path
    ) -> None:
        store = open_datastore(tls_config, tmp_path)
        assert isinstance(store, SqlDatastore)
        with store._engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_version'").one()[1].startswith("TLSv1.")
        store.close()

    def test_a_server_that_nobody_vouches_for_is_refused(self, tls_config: DatastoreConfig, tmp_path: Path) -> None:
        config = msgspec.structs.replace(
            tls_config, root_ca_path="", connection_string=f"{tls_config.connection_string}?tls=true"
        )
        with pytest.raises(DatastoreError, match="certificate verify failed"):
            open_datastore(config, tmp_path)

    def test_a_server_with_another_name_is_refused(
        self, tls_config: DatastoreConfig, tmp_path: Path, server: MariaDbServer
    ) -> None:
        config = msgspec.structs.replace(
            tls_config, connection_string=tls_config.connection_string.replace("127.0.0.1", "localhost")
        )
        with pytest.raises(DatastoreError, match=r"certificate verify failed.*localhost"):
            open_datastore(config, tmp_path)


def test_servers_end_with_the_tests(tmp_path: Path) -> None:
    server = PostgresServer()
    directory = server.directory
    assert server.execute("SELECT 1") == [(1,)]
    server.remove()
    assert not directory.exists()


def test_a_database_in_memory_is_gone_with_it(tmp_path: Path) -> None:
    store = open_datastore(IN_MEMORY, tmp_path / "data")
    store.put_entries([entry("a")])
    other = open_datastore(IN_MEMORY, tmp_path / "data")
    assert other.entries() == []
    store.close()
    other.close()
    assert list(tmp_path.iterdir()) == []
