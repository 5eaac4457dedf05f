import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from nginx_mesh.identity.common.bundle import encode
from nginx_mesh.identity.server.datastore.base import FederationRelationship
from nginx_mesh.identity.server.federation import endpoint as module
from nginx_mesh.identity.server.federation.client import fetch
from nginx_mesh.identity.server.federation.endpoint import BundleEndpoint, web_context
from tests.interop.gospiffe import output
from tests.unit.identity.domains import Domain

from .endpoints import spiffe_endpoint
from .web_pki import WebCa

DOMAIN = Domain()


@asynccontextmanager
async def web_endpoint(directory: Path, ca: WebCa, path: str = "/") -> AsyncIterator[int]:
    files = (directory / "tls.crt", directory / "tls.key")
    ca.issue(*files)
    endpoint = BundleEndpoint(DOMAIN.bundle, web_context(*files), path)
    port = await endpoint.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await endpoint.close()


async def test_answers_get_at_its_path_with_the_bundle_as_json(tmp_path: Path) -> None:
    ca = WebCa(tmp_path)
    context = ssl.create_default_context(cafile=ca.file)
    async with (
        web_endpoint(tmp_path, ca, "/bundle.json") as port,
        aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=aiohttp.TCPConnector(ssl=context)) as session,
    ):
        async with session.get("/bundle.json") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "application/json; charset=utf-8"
            assert await response.read() == encode(DOMAIN.bundle())
        for method, path, status in (("GET", "/", 404), ("GET", "/bundle.json/", 404), ("POST", "/bundle.json", 405)):
            async with session.request(method, path, data=b"x" if method == "POST" else None) as response:
                assert response.status == status


@pytest.mark.parametrize("profile", ["https_web", "https_spiffe"])
async def test_go_spiffe_fetches_it_by_both_profiles(profile: str, tmp_path: Path) -> None:
    expected = {
        "sequence": DOMAIN.sequence,
        "hint": 60,
        "serials": [str(authority.serial_number) for authority in DOMAIN.authorities],
        "keys": [DOMAIN.jwt_key_id],
    }
    if profile == "https_web":
        ca = WebCa(tmp_path)
        async with web_endpoint(tmp_path, ca) as port:
            assert await output("fetch-web", "example.org", f"https://127.0.0.1:{port}/", ca.file) == expected
        return
    known = tmp_path / "known.json"
    known.write_bytes(encode(DOMAIN.bundle()))
    async with spiffe_endpoint(DOMAIN) as relationship:
        fetch = ["fetch-spiffe", "example.org", relationship.endpoint_url]
        assert await output(*fetch, relationship.endpoint_spiffe_id, known) == expected
        with pytest.raises(AssertionError, match="unexpected ID"):
            await output(*fetch, "spiffe://example.org/other", known)


async def served_serial(port: int, blind: ssl.SSLContext) -> int:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=blind)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der).serial_number


async def test_web_certificate_is_reloaded_when_it_changes_and_kept_when_the_new_one_is_bad(
    tmp_path: Path, blind: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    ca = WebCa(tmp_path)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    async with web_endpoint(tmp_path, ca) as port:
        renewed = ca.issue(certificate, key)
        assert await served_serial(port, blind) == renewed
        ca.issue(tmp_path / "other.crt", tmp_path / "other.key")
        with caplog.at_level(logging.WARNING):
            (tmp_path / "other.key").replace(key)
            assert await served_serial(port, blind) == renewed
            assert "cannot be used" in caplog.text
            caplog.clear()
            assert await served_serial(port, blind) == renewed
            assert not caplog.text
            certificate.unlink()
            assert await served_serial(port, blind) == renewed
            assert "cannot be used" in caplog.text
        latest = ca.issue(certificate, key)
        assert await served_serial(port, blind) == latest


def test_web_certificate_that_cannot_be_used_at_first_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        web_context(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "tls.crt").write_text("nothing")
    (tmp_path / "tls.key").write_text("nothing")
    with pytest.raises(ssl.SSLError):
        web_context(tmp_path / "tls.crt", tmp_path / "tls.key")


@pytest.fixture
def blind() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def port_of(relationship: FederationRelationship) -> int:
    return int(relationship.endpoint_url.rpartition(":")[2].strip("/"))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends a connection, without a word, within 20 s."""
    with suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 20) == b""
    return True


async def test_garbage_and_silence_end_and_do_no_harm(blind: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 1.0)
    monkeypatch.setattr(module, "CONNECTION_SECONDS", 1.0)
    async with spiffe_endpoint(DOMAIN) as relationship:
        port = port_of(relationship)
        for junk in (os.urandom(1 << 20), b"GET / HTTP/1.1\r\n\r\n", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with suppress(ConnectionError):
                writer.write(junk)
                await asyncio.wait_for(reader.read(), 20)
            writer.close()
        for line in (b"", b"GET / HTTP/1.1\r\nHost: a\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=blind)
            writer.write(line)
            assert await ended(reader)
            writer.close()
        assert await fetch(relationship, lambda _: DOMAIN.bundle()) == DOMAIN.bundle()


async def test_crowds_are_turned_away_at_a_limit(blind: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 8)
    async with spiffe_endpoint(DOMAIN) as relationship:
        port = port_of(relationship)
        crowd = [await asyncio.open_connection("127.0.0.1", port, ssl=blind) for _ in range(8)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=blind)
        assert await ended(reader)
        crowd[0][1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" in await crowd[0][0].readline()
        for _, opened in [*crowd, (reader, writer)]:
            opened.close()
