"""Two identity servers, each publishing to the other."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.identity.common.bundle import encode
from nginx_mesh.identity.config import read_config
from nginx_mesh.identity.server.config import (
    BundleEndpointSection,
    FederationSection,
    ServerConfig,
)
from nginx_mesh.identity.server.server import IdentityServer, open_authority
from tests.eventually import eventually

from .web_pki import WebCa


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_files_in_the_configuration_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "identity.yaml"
    path.write_text("""
identity:
  federation:
    webCAFile: roots.pem
    bundleEndpoint: {address: "0.0.0.0:8443", profile: https_web, certFile: tls.crt, keyFile: /etc/tls.key}
""")
    found = read_config(path).identity.federation
    assert found.web_ca_file == str(tmp_path / "roots.pem")
    assert found.bundle_endpoint is not None
    assert found.bundle_endpoint.cert_file == str(tmp_path / "tls.crt")
    assert found.bundle_endpoint.key_file == "/etc/tls.key"


def configured(port: int, web_ca: str | None = None, **endpoint: Any) -> ServerConfig:
    section = BundleEndpointSection(address=f"127.0.0.1:{port}", **endpoint)
    federation = FederationSection(bundle_endpoint=section, web_ca_file=web_ca)
    return ServerConfig(federation=federation)


@asynccontextmanager
async def server(trust_domain: str, config: ServerConfig, directory: Path) -> AsyncIterator[IdentityServer]:
    settings = MeshSettings(trust_domain=trust_domain, persistent_storage="off", key_manager="memory")
    running = IdentityServer(open_authority(config, settings, directory / trust_domain), config)
    try:
        await running.start()
        yield running
    finally:
        await running.close()


async def federate(server: IdentityServer, trust_domain: str, **relationship: str) -> str:
    """As an operator does it; what the server objects."""
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(server.admin)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/federation/{trust_domain}"
        session = await stack.enter_async_context(aiohttp.ClientSession())
        response = await session.put(url, json=relationship)
        return "" if response.status == 200 else await response.text()


def knows(server: IdentityServer, other: IdentityServer) -> bool:
    own = other.authority.bundles.own
    known = server.authority.bundles.federated.get(own.trust_domain)
    return known is not None and own.sequence > 0 and encode(known) == encode(own)


async def test_servers_follow_each_others_bundles_by_both_profiles(tmp_path: Path) -> None:
    ca, ports = WebCa(tmp_path), (free_port(), free_port())
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    ca.issue(certificate, key)
    by_svid = configured(ports[0], str(ca.file))
    by_web = configured(ports[1], profile="https_web", cert_file=str(certificate), key_file=str(key))
    async with server("one.test", by_svid, tmp_path) as one, server("two.test", by_web, tmp_path) as two:
        by_web_pki = {"endpoint_url": f"https://127.0.0.1:{ports[1]}/", "profile": "https_web"}
        assert await federate(one, "two.test", **by_web_pki) == ""
        by_id = {
            "endpoint_url": f"https://127.0.0.1:{ports[0]}/",
            "profile": "https_spiffe",
            "endpoint_spiffe_id": "spiffe://one.test/nginx-mesh/identity",
        }
        assert "none of one.test is known" in await federate(two, "one.test", **by_id)
        assert "is our own trust domain" in await federate(two, "two.test", **by_id)
        first = encode(one.authority.bundles.own).decode()
        assert await federate(two, "one.test", **by_id, bundle=first) == ""
        await eventually(lambda: knows(one, two) and knows(two, one), "both know the bundle of the other", 30)


@pytest.mark.parametrize(
    ("endpoint", "field", "reason"),
    [
        ({"address": "nowhere"}, "bundleEndpoint.address", "is not host:port"),
        ({"address": "192.0.2.1:8443"}, "bundleEndpoint.address", r"192\.0\.2\.1:8443: "),
        ({"profile": "https_web"}, "bundleEndpoint", "required with the profile https_web"),
        ({"cert_file": "/tls.crt"}, "bundleEndpoint", "for the profile https_web only"),
        (
            {"profile": "https_web", "cert_file": "/none/tls.crt", "key_file": "/none/tls.key"},
            "bundleEndpoint.certFile",
            "No such file",
        ),
    ],
)
async def test_endpoint_that_cannot_be_is_an_error_that_names_the_field(
    endpoint: dict[str, Any], field: str, reason: str, tmp_path: Path
) -> None:
    section = BundleEndpointSection(**({"address": f"127.0.0.1:{free_port()}"} | endpoint))
    config = ServerConfig(federation=FederationSection(bundle_endpoint=section))
    with pytest.raises(FieldError, match=reason) as error:
        async with server("one.test", config, tmp_path):
            await asyncio.sleep(0)
    assert error.value.field == f"identity.federation.{field}"
