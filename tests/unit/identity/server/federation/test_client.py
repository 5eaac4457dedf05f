import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from nginx_mesh.identity.agent.workloadapi.server import WorkloadApiServer
from nginx_mesh.identity.common.bundle import MAX_DOCUMENT_BYTES, encode
from nginx_mesh.identity.server.datastore.base import FederationRelationship
from nginx_mesh.identity.server.federation import client as module
from nginx_mesh.identity.server.federation.client import FederationError, check_relationship, fetch
from nginx_mesh.identity.server.federation.endpoint import BundleEndpoint, spiffe_context, web_context
from tests.interop.gospiffe import running
from tests.unit.identity.agent.workloadapi.source import Workload
from tests.unit.identity.domains import Domain
from tests.unit.identity.httpserver import Handler, serving

from .endpoints import ENDPOINT, by_web, spiffe_endpoint
from .web_pki import WebCa

PARTNER = Domain("partner.test")
WEB = FederationRelationship("partner.test", "https://partner.test/bundle", "https_web")
SPIFFE = replace(WEB, profile="https_spiffe", endpoint_spiffe_id="spiffe://partner.test/endpoint")


@pytest.mark.parametrize(
    ("relationship", "reason"),
    [
        (replace(WEB, trust_domain="Partner"), "trust domain 'Partner' has characters other"),
        (replace(WEB, trust_domain="example.org"), "that is our own trust domain"),
        (replace(WEB, endpoint_url="http://partner.test/"), "does not start with https://"),
        (replace(WEB, endpoint_url="https://user:pw@partner.test/"), "has user information"),
        (replace(WEB, endpoint_url="https:///bundle"), "has no host"),
        (replace(WEB, endpoint_url="https://partner.test/" + "a" * 2048), "is longer than 2048 characters"),
        (replace(WEB, endpoint_url="https://[::1/"), "is no URL"),
        (replace(WEB, endpoint_url="https://a:99999/"), "is no URL"),
        (replace(WEB, endpoint_spiffe_id="spiffe://partner.test/a"), "for the profile https_spiffe only"),
        (replace(SPIFFE, endpoint_spiffe_id=""), "endpoint_spiffe_id: SPIFFE ID '' does not start"),
        (replace(SPIFFE, endpoint_spiffe_id="spiffe://partner.test"), "endpoint_spiffe_id has no path"),
        (replace(WEB, profile="https_wed"), "profile is neither"),  # type: ignore[arg-type]
    ],
)
def test_relationship_that_cannot_be_is_refused(relationship: FederationRelationship, reason: str) -> None:
    with pytest.raises(FederationError, match=reason):
        check_relationship(relationship, "example.org")


def test_good_relationships_pass() -> None:
    check_relationship(WEB, "example.org")
    check_relationship(SPIFFE, "example.org")


def known(*domains: Domain) -> dict[str, object]:
    return {domain.name: domain.bundle() for domain in domains}


async def refusal(relationship: FederationRelationship, *domains: Domain, web_ca: Path | None = None) -> str:
    with pytest.raises(FederationError) as error:
        await fetch(relationship, known(*domains).get, web_ca)  # type: ignore[arg-type]
    return str(error.value)


async def test_https_spiffe_takes_only_the_endpoint_that_it_knows() -> None:
    async with spiffe_endpoint(PARTNER) as relationship:
        assert await fetch(relationship, lambda _: PARTNER.bundle()) == PARTNER.bundle()
        other = replace(relationship, endpoint_spiffe_id="spiffe://partner.test/other")
        assert "the endpoint has to be spiffe://partner.test/other" in await refusal(other, PARTNER)
        impostor = Domain("partner.test")
        assert "certificate verify failed" in await refusal(relationship, impostor)
        assert "no bundle of partner.test to verify the endpoint by" in await refusal(relationship)


async def test_https_spiffe_endpoint_may_be_of_a_third_trust_domain() -> None:
    broker = Domain("broker.test")
    async with spiffe_endpoint(broker, PARTNER.bundle) as relationship:
        asked = replace(relationship, trust_domain="partner.test")
        assert await fetch(asked, {"broker.test": broker.bundle()}.get) == PARTNER.bundle()
        assert "no bundle of broker.test" in await refusal(asked, PARTNER)


async def test_https_web_verifies_chain_and_host(tmp_path: Path) -> None:
    ca = WebCa(tmp_path)
    files = (tmp_path / "tls.crt", tmp_path / "tls.key")
    ca.issue(*files)
    endpoint = BundleEndpoint(PARTNER.bundle, web_context(*files))
    port = await endpoint.start("127.0.0.1", 0)
    try:
        relationship = replace(WEB, endpoint_url=f"https://127.0.0.1:{port}/")
        assert await fetch(relationship, lambda _: None, ca.file) == PARTNER.bundle()
        assert "certificate verify failed" in await refusal(relationship)
        assert "certificate verify failed" in await refusal(relationship, web_ca=WebCa(tmp_path, "other").file)
        ca.issue(*files, "127.0.0.2")
        assert "IP address mismatch" in await refusal(relationship, web_ca=ca.file)
        assert "roots for https_web" in await refusal(relationship, web_ca=tmp_path / "missing.pem")
    finally:
        await endpoint.close()


async def test_https_web_takes_no_svid_of_a_bundle(tmp_path: Path) -> None:
    async with spiffe_endpoint(PARTNER) as relationship:
        assert "certificate verify failed" in await refusal(by_web(relationship), PARTNER)


@asynccontextmanager
async def odd_endpoint(handler: Handler, domain: Domain = PARTNER) -> AsyncIterator[FederationRelationship]:
    """An endpoint that proves its ID and then answers as it likes."""
    context: ssl.SSLContext = spiffe_context(lambda: domain.svid(ENDPOINT), domain.bundle)
    async with serving(handler, context) as address:
        url = f"{address}/start"
        yield FederationRelationship(domain.name, url, "https_spiffe", f"spiffe://{domain.name}{ENDPOINT}")


async def test_redirects_are_followed_a_few_times_and_never_to_somebody_else() -> None:
    async with spiffe_endpoint(PARTNER) as target, spiffe_endpoint(Domain("partner.test")) as impostor:
        turns = {"good": target.endpoint_url, "bad": impostor.endpoint_url, "plain": "http://127.0.0.1/", "loop": ""}

        async def redirect(request: web.Request) -> web.Response:
            name = request.query_string
            return web.Response(status=302, headers={"Location": turns[name] or f"/again?{name}"})

        async with odd_endpoint(redirect) as relationship:

            def turning(name: str) -> FederationRelationship:
                return replace(relationship, endpoint_url=f"{relationship.endpoint_url}?{name}")

            assert await fetch(turning("good"), lambda _: PARTNER.bundle()) == PARTNER.bundle()
            assert "certificate verify failed" in await refusal(turning("bad"), PARTNER)
            assert "redirect: endpoint_url does not start with https://" in await refusal(turning("plain"), PARTNER)
            assert "more than 3 redirects" in await refusal(turning("loop"), PARTNER)


async def test_answers_that_are_no_bundle_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        match request.query_string:
            case "error":
                return web.Response(status=500, body=encode(PARTNER.bundle()))
            case "junk":
                return web.Response(text="<html>")
            case "slow":
                response = web.StreamResponse()
                await response.prepare(request)
                await asyncio.sleep(60)
                return response
        response = web.StreamResponse()
        await response.prepare(request)
        with_too_much = b" " * (64 << 10)
        for _ in range(2 * MAX_DOCUMENT_BYTES // len(with_too_much)):
            await response.write(with_too_much)
        return response

    monkeypatch.setattr(module, "TIMEOUT", 2.0)
    async with odd_endpoint(answer) as relationship:
        for name, reason in (
            ("error", "answers with status 500"),
            ("junk", "serves no bundle: bundle: not JSON"),
            ("much", "serves more than 1048576 bytes"),
            ("slow", "did not answer within 2 s"),
        ):
            asked = replace(relationship, endpoint_url=f"{relationship.endpoint_url}?{name}")
            assert reason in await refusal(asked, PARTNER)
    assert "Cannot connect" in await refusal(relationship, PARTNER)


async def test_bundle_comes_from_an_endpoint_made_with_go_spiffe(tmp_path: Path) -> None:
    document = tmp_path / "bundle.json"
    document.write_bytes(encode(PARTNER.bundle()))
    server = WorkloadApiServer(Workload(PARTNER, ENDPOINT), tmp_path / "agent.sock")
    await server.start()
    try:
        async with running("serve-bundle", "partner.test", document, tmp_path / "agent.sock") as go:
            url = (await go.line())["url"]
            asked = FederationRelationship("partner.test", url, "https_spiffe", f"spiffe://partner.test{ENDPOINT}")
            fetched = await fetch(asked, lambda _: PARTNER.bundle())
            assert fetched == PARTNER.bundle()
            wrong = replace(asked, endpoint_spiffe_id="spiffe://partner.test/other")
            assert "the endpoint has to be" in await refusal(wrong, PARTNER)
    finally:
        await server.close()
