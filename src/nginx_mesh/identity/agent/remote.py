"""Calls from an agent to an identity server in another process: the messages of common/wire.py over mutual TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError
from nginx_mesh.api.values import HostPort
from nginx_mesh.identity.common import bundle as bundles
from nginx_mesh.identity.common import tls, wire
from nginx_mesh.identity.common.bundle import BundleError, TrustBundle, merged
from nginx_mesh.identity.common.client import (
    Announcement,
    RefusedError,
    Registration,
    SvidAnswer,
    SvidRequest,
    UnavailableError,
)
from nginx_mesh.identity.common.ids import server_spiffe_id
from nginx_mesh.identity.common.keymanager import KeyManager, KeyManagerError
from nginx_mesh.identity.common.keys import from_pem, generate_key, to_pem
from nginx_mesh.identity.common.workload import JwtSvid, X509Svid
from nginx_mesh.identity.common.x509svid import authority_key_id, certificates_pem, request_svid, spiffe_id_of

T = TypeVar("T")

log = logging.getLogger(__name__)

_KEPT = "agent"
_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=3 * wire.HEARTBEAT_SECONDS)
_MAX_BODY = 16 << 20


Evidence = Callable[[], tuple[str, str]]
"""Gives evidence of where this agent runs: the kind of attestation and its payload. Raises UnavailableError."""


def join_token(path: Path) -> Evidence:
    """Evidence: a join token in a file."""
    return lambda: ("join_token", _secret(path, "join token"))


def projected_token(path: Path) -> Evidence:
    """Evidence: the service-account token that Kubernetes keeps in a file, as it is when it is asked for."""
    return lambda: ("k8s_psat", _secret(path, "service-account token"))


def _secret(path: Path, what: str) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(f"{what}: {path}: {getattr(error, 'strerror', None) or error}") from None


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What outlives the process: the agent's SVID (PEM) and a bundle document."""

    chain: str
    key: str
    bundle: bytes
    registrar: bool

    def __repr__(self) -> str:
        return "_Kept(<secret>)"


@dataclass(frozen=True)
class _Own:
    """The agent's own SVID, and whether the agent may register workloads. Times are Unix seconds."""

    svid: X509Svid
    registrar: bool
    renew_at: float

    @property
    def not_before(self) -> float:
        return self.svid.chain[0].not_valid_before_utc.timestamp()

    @property
    def not_after(self) -> float:
        return min(certificate.not_valid_after_utc.timestamp() for certificate in self.svid.chain)


class RemoteClient:
    """An AuthorityClient of a server at `address`.

    `bootstrap` gives roots that verify the server besides those that it announced. It is asked before each connection,
    so that a server which lost its CA can make its new one known. The key manager `keep` keeps the agent's SVID and the
    newest bundle, so that a restart needs no new evidence. A server that does not take the SVID is shown the evidence
    again. If it does not take that either, the SVID is kept, as it may be taken later.
    Raises KeyManagerError when what is kept is damaged.
    """

    def __init__(
        self,
        address: HostPort | Path,
        trust_domain: str,
        *,
        bootstrap: Callable[[], Sequence[x509.Certificate]],
        evidence: Evidence,
        keep: KeyManager,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._address = address
        self._trust_domain = trust_domain
        self._evidence = evidence
        self._keep = keep
        self._clock = clock
        self._bootstrap = bootstrap
        self._bundle = TrustBundle(trust_domain)
        self._own: _Own | None = None
        self._doubted = False
        self._attesting = asyncio.Lock()
        self._load()

    async def watch(self) -> AsyncGenerator[Announcement, None]:
        """See AuthorityClient."""
        await self._ensure_own()
        async with self._request("GET", "/v1/watch", None, self._own, _WATCH_TIMEOUT) as response:
            async for line in _lines(response):
                if line:
                    try:
                        announcement = wire.announcement(wire.decode(wire.Announced, line))
                    except wire.MalformedError as error:
                        raise UnavailableError(f"{self._address}: its announcement is {error}") from None
                    self._heard(announcement)
                    yield announcement
                await self._ensure_own()
        raise UnavailableError(f"{self._address} ended the connection")

    async def sync(self, registrations: Sequence[Registration]) -> None:
        """See AuthorityClient. An agent that may not register leaves it to others."""
        if await self._is_registrar():
            await self._call("PUT", "/v1/entries", wire.Registrations(list(registrations)), dict)

    async def register(self, registrations: Sequence[Registration]) -> None:
        """See AuthorityClient."""
        if await self._is_registrar():
            await self._call("POST", "/v1/entries", wire.Registrations(list(registrations)), dict)

    async def unregister(self, entry_ids: Sequence[str]) -> None:
        """See AuthorityClient."""
        if await self._is_registrar():
            await self._call("POST", "/v1/entries/delete", wire.EntryIds(list(entry_ids)), dict)

    async def sign(self, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        """See AuthorityClient."""
        return (await self._call("POST", "/v1/svids", wire.SvidRequests(list(requests)), wire.SvidAnswers)).answers

    async def sign_jwt(self, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """See AuthorityClient."""
        found = await self._call("POST", "/v1/jwt", wire.JwtRequest(entry_id, list(audience)), wire.Jwt)
        try:
            return JwtSvid(SpiffeId.parse(found.spiffe_id), found.token, found.expires_at)
        except SpiffeIdError as error:
            raise UnavailableError(f"{self._address} answered with a malformed JWT-SVID: {error}") from None

    async def _ensure_own(self) -> None:
        """Make sure that there is a valid SVID, by renewal or by new evidence if need be. Raises UnavailableError."""
        async with self._attesting:
            own, now = self._own, self._clock()
            if own is None or self._doubted or not own.not_before <= now < own.not_after:
                self._doubted = False
                kind, payload = await asyncio.to_thread(self._evidence)
                await self._obtain("/v1/attest", lambda csr: wire.Evidence(kind, payload, csr), None)
            elif now >= own.renew_at:
                try:
                    await self._obtain("/v1/renew", lambda csr: wire.Csr(csr), own)
                except UnavailableError as error:
                    self._own = replace(own, renew_at=now + (own.not_after - now) / 10)
                    log.warning("the agent's SVID is not renewed: %s; trying again", error)

    async def _is_registrar(self) -> bool:
        await self._ensure_own()
        return self._own is not None and self._own.registrar

    async def _obtain(self, path: str, message: Callable[[bytes], wire.Message], own: _Own | None) -> None:
        """Obtain an SVID to replace `own`. With None, the evidence in the message decides who we are."""
        key = generate_key("ec-p256")
        csr = request_svid(key, None if own is None else own.svid.spiffe_id)
        wanted = message(csr.public_bytes(serialization.Encoding.DER))
        try:
            answer = await self._exchange("POST", path, wanted, wire.AgentSvid, own)
        except RefusedError as error:
            raise UnavailableError(f"this agent is not admitted: {error}") from None
        try:
            chain = tuple(x509.load_der_x509_certificate(certificate) for certificate in answer.chain)
            svid = X509Svid(spiffe_id_of(chain[0]), chain, key)
        except (ValueError, IndexError) as error:
            raise UnavailableError(f"{self._address} answered with a malformed SVID: {error}") from None
        now = self._clock()
        fresh = _Own(svid, answer.registrar, now)
        self._own = replace(fresh, renew_at=now + (fresh.not_after - now) / 2)
        if not answer.registrar:
            log.warning("%s may not register workloads: others have to", svid.spiffe_id)
        self._save()

    def _heard(self, announcement: Announcement) -> None:
        own = announcement.bundles.get(self._trust_domain)
        if announcement.trust_domain != self._trust_domain or own is None:
            raise UnavailableError(
                f"{self._address} serves the trust domain {announcement.trust_domain}, not {self._trust_domain}"
            )
        if own != self._bundle:
            self._bundle = own
            self._save()
        if self._own is not None and authority_key_id(self._own.svid.chain[0]) in announcement.retired:
            self._own = replace(self._own, renew_at=self._clock())

    async def _call(self, method: str, path: str, message: object, answer: type[T]) -> T:
        await self._ensure_own()
        return await self._exchange(method, path, message, answer, self._own)

    async def _exchange(self, method: str, path: str, message: object, answer: type[T], own: _Own | None) -> T:
        async with self._request(method, path, message, own) as response:
            try:
                return wire.decode(answer, await response.read())
            except wire.MalformedError as error:
                raise UnavailableError(f"{self._address}: its answer is {error}") from None

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, message: object, own: _Own | None, timeout: aiohttp.ClientTimeout = _TIMEOUT
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request with the SVID `own`, if it succeeds. Raises UnavailableError, RefusedError."""
        try:
            async with (
                aiohttp.ClientSession(connector=_connector(self._address, self._context(own))) as session,
                session.request(
                    method,
                    f"https://{_url_authority(self._address)}{path}",
                    data=None if message is None else wire.encode(message),
                    timeout=timeout,
                    allow_redirects=False,
                ) as response,
            ):
                if response.status >= 400:
                    reason = await _reason(response)
                    if response.status == 401:
                        self._doubt(own)
                    if response.status in (400, 403):
                        raise RefusedError(f"{self._address}: {reason}")
                    raise UnavailableError(f"{self._address}: {reason}")
                yield response
        except (aiohttp.ClientError, ssl.SSLError, OSError, TimeoutError) as error:
            if not isinstance(error, aiohttp.ClientConnectorError | TimeoutError) and self._is_stranger(own):
                self._doubt(own)
            raise UnavailableError(f"{self._address}: {error or type(error).__name__}") from None

    def _context(self, own: _Own | None) -> ssl.SSLContext:
        return tls.client_context(None if own is None else lambda: own.svid, self._trusted, self._authorise)

    def _doubt(self, own: _Own | None) -> None:
        """Remember that the server does not take this SVID."""
        self._doubted = self._doubted or own is self._own

    def _is_stranger(self, own: _Own | None) -> bool:
        """Whether a server that ends the connection may have lost the CA that signed our SVID.

        The TLS of asyncio does not say why a connection ended.
        """
        roots = self._bootstrap()
        return own is not None and own.svid.chain[-1].issuer not in [root.subject for root in roots]

    def _trusted(self) -> TrustBundle:
        return merged(self._bundle, TrustBundle(self._trust_domain, tuple(self._bootstrap())), self._clock())

    def _authorise(self, peer: SpiffeId | None) -> str | None:
        expected = server_spiffe_id(self._trust_domain)
        return None if peer == expected else f"an identity server is {expected}"

    def _load(self) -> None:
        kept = self._keep.get(_KEPT)
        if kept is None:
            return
        try:
            decoded = msgspec.json.decode(kept, type=_Kept)
            chain = tuple(x509.load_pem_x509_certificates(decoded.chain.encode()))
            svid = X509Svid(spiffe_id_of(chain[0]), chain, from_pem(decoded.key))
            bundle = bundles.decode(self._trust_domain, decoded.bundle)
        except (ValueError, IndexError, BundleError) as error:
            raise KeyManagerError(f"{self._keep}: {_KEPT}: {error}") from None
        self._bundle = bundle
        own = _Own(svid, decoded.registrar, 0.0)
        if svid.spiffe_id.trust_domain == self._trust_domain and self._clock() < own.not_after:
            self._own = replace(own, renew_at=own.not_before + (own.not_after - own.not_before) / 2)

    def _save(self) -> None:
        own = self._own
        if own is None:
            return
        bundle = bundles.encode(self._bundle, expiries=True)
        kept = _Kept(certificates_pem(own.svid.chain), to_pem(own.svid.key), bundle, own.registrar)
        try:
            self._keep.put(_KEPT, msgspec.json.encode(kept))
        except KeyManagerError as error:
            log.error("the agent's SVID is not kept, a restart will need new evidence: %s", error)


def _url_authority(address: HostPort | Path) -> str:
    """The part of a URL that names the server (RFC 3986, 3.2)."""
    return "identity" if isinstance(address, Path) else str(address)


def _connector(address: HostPort | Path, context: ssl.SSLContext) -> aiohttp.BaseConnector:
    """A connector that uses no connection twice: each proves who we are by the SVID of the time when it was made."""
    if isinstance(address, Path):
        return _UnixTlsConnector(address, context)
    return aiohttp.TCPConnector(ssl=context, force_close=True)


class _UnixTlsConnector(aiohttp.UnixConnector):
    """A connector with TLS on a unix socket, which aiohttp does not have."""

    def __init__(self, path: Path, context: ssl.SSLContext) -> None:
        super().__init__(str(path), force_close=True)
        self._context = context

    async def _create_connection(self, *_request: object) -> ResponseHandler:
        async with asyncio.timeout(_TIMEOUT.sock_connect):
            _, protocol = await self._loop.create_unix_connection(
                self._factory, self.path, ssl=self._context, server_hostname="identity"
            )
        return protocol


async def _reason(response: aiohttp.ClientResponse) -> str:
    body = await response.content.read(4096)
    try:
        return msgspec.json.decode(body, type=wire.Failed).error
    except msgspec.DecodeError:
        return f"HTTP status {response.status}"


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a body, each as soon as it is complete. Raises UnavailableError for one that is too long."""
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > _MAX_BODY:
            raise UnavailableError("the server's announcement is too long")
