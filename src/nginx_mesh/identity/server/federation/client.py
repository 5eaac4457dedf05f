"""Fetching another trust domain's bundle from its endpoint."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError
from nginx_mesh.identity.common.bundle import MAX_DOCUMENT_BYTES, BundleError, TrustBundle, decode
from nginx_mesh.identity.common.tls import client_context
from nginx_mesh.identity.server.datastore.base import FederationRelationship

TIMEOUT = 30.0
"""Seconds for a whole fetch, redirects included."""
MAX_REDIRECTS = 3
MAX_URL_CHARACTERS = 2048

_REDIRECTS = (301, 302, 303, 307, 308)


class FederationError(Exception):
    """A relationship that is not allowed, or a bundle that could not be fetched. The message says which and why."""


def check_relationship(relationship: FederationRelationship, own: str) -> None:
    """Raise FederationError for a relationship that the standard does not allow, or one with ourselves (`own`)."""
    name = relationship.trust_domain
    where = f"federation with {name[:255]!r}"
    try:
        SpiffeId(name)
    except SpiffeIdError as error:
        raise FederationError(f"{where}: {error}") from None
    if name == own:
        raise FederationError(f"{where}: that is our own trust domain")
    _check_url(relationship.endpoint_url, where)
    match relationship.profile:
        case "https_web":
            if relationship.endpoint_spiffe_id:
                raise FederationError(f"{where}: endpoint_spiffe_id is for the profile https_spiffe only")
        case "https_spiffe":
            try:
                path = SpiffeId.parse(relationship.endpoint_spiffe_id).path
            except SpiffeIdError as error:
                raise FederationError(f"{where}: endpoint_spiffe_id: {error}") from None
            if not path:
                raise FederationError(f"{where}: endpoint_spiffe_id has no path")
        case _:
            raise FederationError(f"{where}: profile is neither https_web nor https_spiffe")


async def fetch(
    relationship: FederationRelationship,
    known: Callable[[str], TrustBundle | None],
    web_ca: Path | None = None,
) -> TrustBundle:
    """The bundle that the endpoint of a (checked) relationship serves now. Raises FederationError.

    The profiles are those of the SPIFFE Federation standard. `known` gives the bundle that we have of a trust domain:
    with https_spiffe it verifies the endpoint, whose SPIFFE ID names the trust domain. `web_ca` is a PEM file of roots
    for https_web, None for the system's.
    """
    where = f"federation with {relationship.trust_domain}"
    context = _context(relationship, known, web_ca, where)
    try:
        async with asyncio.timeout(TIMEOUT):
            document = await _get(relationship.endpoint_url, context, where)
    except TimeoutError:
        raise FederationError(f"{where}: {relationship.endpoint_url} did not answer within {TIMEOUT:.0f} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise FederationError(f"{where}: {relationship.endpoint_url}: {error}") from None
    try:
        return decode(relationship.trust_domain, document)
    except BundleError as error:
        raise FederationError(f"{where}: {relationship.endpoint_url} serves no bundle: {error}") from None


def _context(
    relationship: FederationRelationship, known: Callable[[str], TrustBundle | None], web_ca: Path | None, where: str
) -> ssl.SSLContext:
    if relationship.profile == "https_web":
        try:
            return ssl.create_default_context(cafile=web_ca)
        except OSError as error:
            raise FederationError(f"{where}: roots for https_web in {web_ca}: {error}") from None
    endpoint = SpiffeId.parse(relationship.endpoint_spiffe_id)
    bundle = known(endpoint.trust_domain)
    if bundle is None:
        raise FederationError(
            f"{where}: no bundle of {endpoint.trust_domain} to verify the endpoint by; it needs one to begin with"
        )
    return client_context(
        None, lambda: bundle, lambda peer: None if peer == endpoint else f"the endpoint has to be {endpoint}"
    )


async def _get(url: str, context: ssl.SSLContext, where: str) -> bytes:
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        for _ in range(MAX_REDIRECTS + 1):
            async with session.get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    # The context stays: whoever answers has to prove the same.
                    url = urljoin(url, response.headers["Location"])
                    _check_url(url, f"{where}: redirect")
                    continue
                if response.status != 200:
                    raise FederationError(f"{where}: {url} answers with status {response.status}")
                return await _read(response, f"{where}: {url}")
    raise FederationError(f"{where}: more than {MAX_REDIRECTS} redirects")


async def _read(response: aiohttp.ClientResponse, where: str) -> bytes:
    document = bytearray()
    async for chunk in response.content.iter_chunked(64 << 10):
        document += chunk
        if len(document) > MAX_DOCUMENT_BYTES:
            raise FederationError(f"{where} serves more than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(document)


def _check_url(url: str, where: str) -> None:
    if len(url) > MAX_URL_CHARACTERS:
        raise FederationError(f"{where}: endpoint_url is longer than {MAX_URL_CHARACTERS} characters")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise FederationError(f"{where}: endpoint_url is no URL") from None
    if parts.scheme != "https":
        raise FederationError(f"{where}: endpoint_url does not start with https://")
    if not host:
        raise FederationError(f"{where}: endpoint_url has no host")
    if "@" in parts.netloc:
        raise FederationError(f"{where}: endpoint_url has user information")
