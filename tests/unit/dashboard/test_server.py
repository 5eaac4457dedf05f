"""The dashboard's server: which requests it answers, and its response while there is no daemon."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import aiohttp
import pytest

from nginx_mesh.dashboard.server import DashboardServer, is_known_host, is_loopback

STATIC = Path(str(resources.files("nginx_mesh.dashboard"))) / "static"


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    server = DashboardServer("shop", tmp_path / "api.sock")
    yield await server.start("127.0.0.1", 0)
    await server.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8650", "localhost", "LOCALHOST:1", "[::1]:8650", "10.1.2.3"])
def test_ip_addresses_and_localhost_are_known_hosts(host: str) -> None:
    assert is_known_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8650",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "a b",
        "[::1",
        "@localhost.x",
    ],
)
def test_domain_names_are_not_known_hosts(host: str) -> None:
    assert not is_known_host(host)


def test_loopback_addresses_are_distinguished_from_others() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    with pytest.raises(OSError):
        is_loopback("not an address")


async def test_only_get_requests_with_a_known_host_are_answered(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("", "static/app.js", "api/graph"):
            async with session.get(url + path, headers={"Host": "evil.example"}) as answer:
                assert answer.status == 421
                assert "script" not in await answer.text()
            for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
                async with session.request(method, url + path) as answer:
                    assert answer.status == 405
                    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_every_response_has_the_security_headers(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for path in (
            "",
            "static/style.css",
            "api/graph",
            "nowhere",
            "static/../server.py",
            "static/%2e%2e%2fserver.py",
        ):
            async with session.get(url + path, headers={"Origin": "http://evil.example"}) as answer:
                headers = answer.headers
                assert "default-src 'none'" in headers["Content-Security-Policy"]
                assert "unsafe" not in headers["Content-Security-Policy"]
                assert headers["X-Frame-Options"] == "DENY"
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
                assert "Access-Control-Allow-Origin" not in headers
                assert "Python" not in headers["Server"]
                if "server.py" in path or path == "nowhere":
                    assert answer.status == 404


async def test_without_a_daemon_the_response_is_503_and_names_the_mesh(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{url}api/graph") as answer:
        assert answer.status == 503
        said = await answer.json()
    assert (said["missing"], said["mesh"]) == ("daemon", "shop")
    assert said["message"]


async def test_another_port_is_used_only_when_none_was_requested(tmp_path: Path, url: str) -> None:
    port = int(url.rstrip("/").rpartition(":")[2])
    other = DashboardServer("shop", tmp_path / "api.sock")
    with pytest.raises(OSError):
        await other.start("127.0.0.1", port)
    await other.close()
    other = DashboardServer("shop", tmp_path / "api.sock")
    assert not (await other.start("127.0.0.1", port, any_port=True)).endswith(f":{port}/")
    await other.close()


def test_the_page_loads_nothing_from_other_origins_and_sets_no_markup() -> None:
    for file in STATIC.iterdir():
        text = file.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            file
        )
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
