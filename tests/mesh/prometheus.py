"""A real Prometheus for tests, on a port of its own, that scrapes a local mesh as the guide says."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from nginx_mesh.api.values import HostPort
from tests.eventually import wait_until

from .localcli import CTL, LocalCli

CONFIGURATION = Path(__file__).parents[2] / "deploy/observability/prometheus"
_SECONDS = 30.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Scraping:
    """`with Scraping(mesh) as prometheus:` runs `nginx-meshctl local metrics`, and a Prometheus as we configure it."""

    def __init__(self, mesh: LocalCli, interval: str = "1s") -> None:
        self.address = HostPort("127.0.0.1", free_port())
        self.listening = HostPort("127.0.0.1", free_port())
        self._mesh = mesh
        self._interval = interval
        self._directory = Path(tempfile.mkdtemp(prefix="nsm-prometheus-", dir="/tmp"))
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Scraping:
        try:
            self._spawn("metrics", [*CTL, "metrics", "--name", self._mesh.name, "--listen", str(self.listening)])
            self._wait(f"http://{self.listening}/targets")
            self._spawn(
                "prometheus",
                [
                    "prometheus",
                    f"--config.file={self._configured()}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self.address}",
                ],
            )
            self._wait(f"http://{self.address}/-/ready")
            pods = json.loads(self._get(f"http://{self.listening}/targets"))
            self._mesh.wait(lambda: len(self.query("up == 1 and on (pod) nginxplus_state_version")) >= len(pods), 30)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def query(self, expression: str) -> list[Any]:
        """The vector that an expression gives. Fails when Prometheus refuses it."""
        url = f"http://{self.address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            found: list[Any] = json.loads(self._get(url))["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        return found

    def rules(self) -> int:
        """How many rules it has."""
        groups = json.loads(self._get(f"http://{self.address}/api/v1/rules"))["data"]["groups"]
        return sum(len(group["rules"]) for group in groups)

    def stop(self) -> None:
        """End Prometheus, as if it had crashed."""
        process = self._processes.pop()
        process.kill()
        process.wait()

    def close(self) -> None:
        """End both, and leave nothing behind."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
        shutil.rmtree(self._directory)

    def _configured(self) -> Path:
        """Our configuration, of this run's ports, and faster."""
        for name in ("local.yaml", "alerts.yaml"):
            shutil.copy(CONFIGURATION / name, self._directory / name)
        path = self._directory / "local.yaml"
        text = (
            path.read_text()
            .replace("127.0.0.1:9887", str(self.listening))
            .replace("refresh_interval: 5s", "refresh_interval: 1s")
        )
        config = yaml.safe_load(text)
        config["global"] = {"scrape_interval": self._interval, "evaluation_interval": self._interval}
        path.write_text(yaml.safe_dump(config))
        return path

    def _spawn(self, name: str, argv: list[str]) -> None:
        with (self._directory / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(argv, env=self._mesh.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            )

    def _wait(self, url: str) -> None:
        def answers() -> bool:
            try:
                self._get(url)
            except OSError:
                return False
            return True

        wait_until(answers, lambda: "".join(path.read_text() for path in self._directory.glob("*.log")), _SECONDS)

    @staticmethod
    def _get(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - ours
            content: bytes = answer.read()
        return content
