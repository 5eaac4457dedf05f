"""Private PostgreSQL and MariaDB servers: in a temporary directory, of an unprivileged user, gone with the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pymysql

from nginx_mesh.identity.server.datastore import DatastoreConfig

PASSWORD = "correct horse/battery@staple:%3F?&=' "  # noqa: S105 - of servers that live as long as the tests
USER = "mesh"
_START = 150  # seconds
# Debian keeps the tools of several versions of PostgreSQL apart, and MariaDB's server where only root looks.
_PATHS = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), "/usr/sbin", "/usr/bin"]


class DatabaseServer(Protocol):
    """A server. `database` is how to reach one of its databases, made if it is not there."""

    directory: Path

    def database(self, name: str) -> DatastoreConfig: ...

    def drop(self, name: str) -> None: ...

    def execute(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def restart(self) -> None: ...

    def remove(self) -> None: ...


class _Server:
    """A process and its directory. Root starts it as nobody: database servers refuse to be root."""

    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nginx-mesh-test-db-", dir="/tmp"))  # sockets want short paths
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if os.geteuid() == 0:
                nobody = pwd.getpwnam("nobody")
                os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self.install()
            self.start()
        except BaseException:
            self.remove()
            raise

    def install(self) -> None:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> None:
        """Raise OSError, or the driver's error, until it answers."""
        raise NotImplementedError

    def run(self, *command: str) -> None:
        done = subprocess.run(
            self._as_nobody(list(command)), cwd=self.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        deadline, starts = time.monotonic() + _START, 0
        while True:
            if self._process is None or self._process.poll() is not None:  # what took its port may be gone
                assert starts < 3, self._said()
                starts += 1
                with (self.directory / "server.log").open("ab") as log:
                    self._process = subprocess.Popen(
                        self._as_nobody(self.command()), cwd=self.directory, stdout=log, stderr=log
                    )
            try:
                return self.ready()
            except (OSError, psycopg.Error, pymysql.Error) as error:
                assert time.monotonic() < deadline, f"{error}\n{self._said()}"
                time.sleep(0.05)

    def _said(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory)

    def _as_nobody(self, command: list[str]) -> list[str]:
        # The server ends also when the tests are killed.
        privileges = ["setpriv", f"--pdeathsig={self.stop_signal.name.removeprefix('SIG')}"]
        if os.geteuid() == 0:
            privileges += ["--reuid=nobody", f"--regid={pwd.getpwnam('nobody').pw_gid}", "--clear-groups"]
        return [*privileges, "--", _tool(command[0]), *command[1:]]


class PostgresServer(_Server):
    """Listens on a unix socket only."""

    stop_signal = signal.SIGINT  # disconnects clients

    def install(self) -> None:
        secret = self.directory / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ["--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        self.run("initdb", f"--pgdata={self.directory / 'data'}", f"--username={USER}", *options)
        secret.unlink()

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "50",
        }
        return [
            "postgres",
            "-D",
            str(self.directory / "data"),
            *(f"--{key}={value}" for key, value in settings.items()),
        ]

    def ready(self) -> None:
        self.execute("SELECT 1")

    def database(self, name: str) -> DatastoreConfig:
        if not self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):  # noqa: S608
            self.execute(f"CREATE DATABASE {name}")
        quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        return DatastoreConfig(
            database_type="postgres",
            connection_string=f"host={self.directory} user={USER} dbname={name} password='{quoted}'",
        )

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
        with psycopg.connect(
            host=str(self.directory), user=USER, password=PASSWORD, dbname=database or "postgres", autocommit=True
        ) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class MariaDbServer(_Server):
    """Listens on a unix socket, and with TLS on a port of 127.0.0.1; `authority` is the file with the CA of that."""

    @property
    def authority(self) -> Path:
        return self.directory / "ca.pem"

    def install(self) -> None:
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        self.run("mariadb-install-db", "--no-defaults", f"--datadir={self.directory / 'data'}", *options)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem", "-out", "ca.pem"]
        name = ["-subj", "/CN=mariadb", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        self.run("openssl", "req", "-x509", *key, *name)
        quoted = PASSWORD.replace("'", "''")
        (self.directory / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{quoted}';\nGRANT ALL ON *.* TO '{USER}'@'%';\n"
        )

    def command(self) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {
            "datadir": str(self.directory / "data"),
            "socket": str(self.directory / "socket"),
            "pid-file": str(self.directory / "pid"),
            "init-file": str(self.directory / "init.sql"),
            "bind-address": "127.0.0.1",
            "port": str(self.port),
            "ssl-cert": str(self.directory / "ca.pem"),
            "ssl-key": str(self.directory / "key.pem"),
            "innodb-buffer-pool-size": "16M",
            "innodb-flush-log-at-trx-commit": "0",
        }
        return ["mariadbd", "--no-defaults", *(f"--{key}={value}" for key, value in settings.items())]

    def ready(self) -> None:
        self.execute("SELECT 1")

    def database(self, name: str) -> DatastoreConfig:
        self.execute(f"CREATE DATABASE IF NOT EXISTS {name}")
        return DatastoreConfig(
            database_type="mysql",
            connection_string=f"{USER}:{PASSWORD}@unix({self.directory / 'socket'})/{name}?parseTime=true",
        )

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name}")

    def execute(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
        connection = pymysql.connect(
            unix_socket=str(self.directory / "socket"), user=USER, password=PASSWORD, database=database or None
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()
            return list(cursor.fetchall())


SERVERS: dict[str, Callable[[], DatabaseServer]] = {"postgres": PostgresServer, "mysql": MariaDbServer}


def _tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join(_PATHS))
    assert found is not None, f"{name} is not installed: run `make setup-dev`"
    return found
