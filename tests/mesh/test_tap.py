"""`nginx-meshctl tap`: requests of a real mesh, as they end."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .localcli import LocalCli
from .test_top import APP

pytestmark = pytest.mark.mesh

# Tests in the background of a shell ignore Ctrl-C, and so would the command.
MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from nginx_mesh.cli.main import main
main()
"""
TAP = [sys.executable, "-c", MAIN, "tap"]
GET = """
import http.client, sys
connection = http.client.HTTPConnection("web.shop")
for path in sys.argv[1:]:
    connection.request("GET", path)
    connection.getresponse().read()
"""
GRANT = """
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {name: nobody, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: default, namespace: shop}
  rules: [{kind: HTTPRouteGroup, name: none, matches: [none]}]
  sources: [{kind: ServiceAccount, name: default, namespace: shop}]
---
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: none, namespace: shop}
spec: {matches: [{name: none, pathRegex: /allowed, methods: [GET]}]}
"""
ACCOUNT = "spiffe://example.org/ns/shop/sa/default"


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalCli]:
    with LocalCli() as found:
        found.ok("up", "-f", "-", stdin=APP.encode())
        yield found


def get(mesh: LocalCli, *paths: str) -> None:
    mesh.ok("exec", "deploy/client", "-n", "shop", "--", "python3", "-c", GET, *paths)


@contextmanager
def watching(mesh: LocalCli, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `tap` that sees what is requested from now on."""
    argv = [*TAP, "--mesh", mesh.name, "-n", "shop", *arguments]
    before = mesh.daemon_log().count("a viewer watches")
    with subprocess.Popen(argv, env=mesh.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            mesh.wait(lambda: mesh.daemon_log().count("a viewer watches") > before or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            yield process
        finally:
            process.kill()


def shown(process: subprocess.Popen[str], n: int) -> list[Any]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(n)]


def test_requests_are_shown_as_they_end_from_both_sides(mesh: LocalCli) -> None:
    with watching(mesh, "deploy/web", "-o", "json", "--limit", "1") as process:
        get(mesh, "/hello?token=secret")
        (line,) = shown(process, 1)
        assert process.wait(20) == 0
    web, client = (line["pod"], line["peer"])
    assert web.startswith("shop/web-") and client.startswith("shop/client-")
    assert "secret" not in json.dumps(line)
    assert (
        line.items()
        >= {
            "direction": "in",
            "method": "GET",
            "authority": "web.shop",
            "path": "/hello",
            "status": 200,
            "mtls": True,
            "clientId": ACCOUNT,
            "serverId": ACCOUNT,
        }.items()
    )
    assert 0 <= line["latencyMs"] < 10_000
    assert abs(line["time"] - time.time()) < 60
    with watching(mesh, "client", "--to", "web", "--limit", "1") as process:
        get(mesh, "/missing")
        out, _ = process.communicate(timeout=20)
    words = out.split()
    assert words[1:7] == [client, "->", web, "GET", "/missing", "404"]
    assert {"mtls", f"client={ACCOUNT}", f"server={ACCOUNT}", "cluster=shop/web:80"} <= set(words)


def test_only_what_is_asked_for_is_shown(mesh: LocalCli) -> None:
    wish = ("--from", "deploy/client", "--method", "get", "--path", "/m", "--status", "4xx", "-o", "json")
    with watching(mesh, "shop/svc/web", *wish) as process:
        get(mesh, "/", "/missing", "/more", "/missing")
        assert [line["path"] for line in shown(process, 2)] == ["/missing"] * 2
    with watching(mesh, "deploy/web", "--from", "deploy/web", "-o", "json") as nothing:
        with watching(mesh, "deploy/web", "-o", "json") as everything:
            get(mesh, "/one")
            assert shown(everything, 1)[0]["path"] == "/one"
        nothing.send_signal(signal.SIGINT)
        out, _ = nothing.communicate(timeout=20)
        assert (out, nothing.returncode) == ("", 130)


def test_the_policy_that_decided_is_shown(mesh: LocalCli) -> None:
    mesh.apply(GRANT)
    try:
        with watching(mesh, "deploy/web", "-o", "json") as process:
            get(mesh, "/allowed", "/forbidden")
            allowed, denied = shown(process, 2)
        assert (allowed["status"], allowed["policy"]) == (200, "shop/nobody")
        assert (denied["status"], denied["reason"]) == (403, "access denied")
    finally:
        mesh.ok("delete", "tt/nobody", "-n", "shop")


def test_no_more_is_shown_than_was_asked_for(mesh: LocalCli) -> None:
    with watching(mesh, "deploy/web", "--max-rps", "5", "-o", "json") as process:
        began = time.monotonic()
        get(mesh, *["/many"] * 300)
        seconds = time.monotonic() - began
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert 1 <= len(out.splitlines()) <= 5 * seconds + 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nobody",), "there is no pod of shop/nobody"),
        (("cm/app",), "a ConfigMap has no requests"),
        (("a/b/c/d",), "is not [NAMESPACE/][KIND/]NAME"),
        (("web", "--status", "6xx"), "neither a status such as 404 nor a class such as 5xx"),
        (("web", "--to", "what/ever/web"), 'there is no kind "ever"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_watched_is_said(mesh: LocalCli, arguments: tuple[str, ...], said: str) -> None:
    argv = [*TAP, "--mesh", mesh.name, "-n", "shop", *arguments]
    done = subprocess.run(argv, env=mesh.env, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_only_root_can_watch(mesh: LocalCli) -> None:
    status = (mesh.paths.run / "api.sock").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    argv = [*TAP, "--mesh", mesh.name, "web"]
    done = subprocess.run(
        argv, env=mesh.env, capture_output=True, text=True, check=False, timeout=30, user=65534, cwd="/"
    )
    assert done.returncode == 1
    assert "root" in done.stderr


def test_sidecars_report_only_while_somebody_watches(mesh: LocalCli) -> None:
    """Without a socket to send to, each report is counted as dropped: there are none once the command has ended."""

    def dropped() -> int:
        argv = ("curl", "-s", "http://127.0.0.1:8887/metrics")
        text = mesh.ok("exec", "deploy/client", "-n", "shop", "--", *argv)
        (line,) = [line for line in text.splitlines() if line.startswith("nginxplus_reports_dropped_total{")]
        return int(line.split()[1])

    with watching(mesh, "client", "-o", "json") as process:
        get(mesh, "/seen")
        assert shown(process, 1)[0]["path"] == "/seen"
        for path in mesh.paths.sockets.glob("*/report.sock"):
            path.unlink()
        before = dropped()
        get(mesh, "/lost", "/lost")
        mesh.wait(lambda: dropped() == before + 2)
        ended = "a viewer of the requests of Deployment shop/client is gone"
        earlier = mesh.daemon_log().count(ended)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    mesh.wait(lambda: mesh.daemon_log().count(ended) > earlier)
    before = dropped()
    get(mesh, "/unseen", "/unseen")
    assert dropped() == before
