"""The bundle endpoint of the SPIFFE Federation standard: HTTPS that gives our trust bundle to anybody."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from nginx_mesh.identity.common.bundle import TrustBundle, encode
from nginx_mesh.identity.common.tls import LiveContext, SvidSource, harden, server_context

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
HANDSHAKE_SECONDS = 10.0
CONNECTION_SECONDS = 30.0
"""No connection lives longer."""


def spiffe_context(svid_source: SvidSource, bundle: Callable[[], TrustBundle]) -> ssl.SSLContext:
    """TLS of the profile https_spiffe: the server's own SVID, no client certificates."""
    return server_context(svid_source, bundle, lambda _: None, client_certificate="none")


def web_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS of the profile https_web: a certificate chain and a key in PEM files, read anew when they change.

    Raises OSError and ssl.SSLError when they cannot be used at first. When they cannot be used later, that is logged,
    and the former ones remain in use.
    """
    return LiveContext(ssl.PROTOCOL_TLS_SERVER, _WebCertificate(certificate, key).current)


class BundleEndpoint:
    """Serves what `bundle` gives at `path`, to anybody."""

    def __init__(self, bundle: Callable[[], TrustBundle], context: ssl.SSLContext, path: str = "/") -> None:
        self._bundle, self._context, self._path = bundle, context, path
        self._http = _Http(self._answer, access_log=None, keepalive_timeout=CONNECTION_SECONDS)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen. Returns the port, which the system chose if 0 was asked for. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_server(
            self._http, host, port, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening; connections end."""
        if self._server is not None:
            self._server.close()
            await self._http.shutdown(timeout=1)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.path != self._path:
            return web.Response(status=404)
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        return web.Response(body=encode(self._bundle()), content_type="application/json", charset="utf-8")


class _Http(web.Server):
    """An HTTP server for anybody, so with a limit to the life and to the number of connections."""

    def __call__(self) -> web.RequestHandler | asyncio.Protocol:  # type: ignore[override]
        if len(self.connections) >= MAX_CONNECTIONS:
            return _Refusal()
        protocol = super().__call__()
        asyncio.get_running_loop().call_later(CONNECTION_SECONDS, protocol.force_close)
        return protocol


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _WebCertificate:
    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._seen = self._state()
        self._context = self._load()

    def current(self) -> ssl.SSLContext:
        try:
            state = self._state()
            if state != self._seen:
                # Remembered even if loading fails, so that each change is complained about once.
                self._seen = state
                self._context = self._load()
                log.info("bundle endpoint: certificate %s was renewed", self._files[0])
        except OSError as error:  # ssl.SSLError is one
            log.warning("bundle endpoint: certificate %s with key %s cannot be used: %s", *self._files, error)
        return self._context

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        statuses = [file.stat() for file in self._files]
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in statuses)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        harden(context)
        # Without a passphrase OpenSSL would ask the terminal for one.
        context.load_cert_chain(*self._files, password="")
        return context
