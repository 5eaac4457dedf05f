"""Serves the dashboard's page, and forwards the page's requests to the API of the mesh.

The server answers only GET requests whose Host header is an IP address or `localhost`. A web site whose domain name
was made to resolve to this address (DNS rebinding) is refused. No other origin may read the responses (no CORS), frame
the page, or run code in it.

| path | |
|---|---|
| `/`, `/static/NAME` | the page |
| `/api/graph`, `/api/events`, `/api/workloads/NAMESPACE/KIND/NAME` | overview/; 503 while the API does not answer |
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from nginx_mesh.observe.responses import json_response

DEFAULT_PORT = 8650

_TIMEOUT_SECONDS = 5.0
_STATIC = resources.files(__package__) / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "nginx-mesh-dashboard",
}


class DashboardServer:
    """The dashboard of the mesh named `mesh`, whose API is at the unix socket `api`."""

    def __init__(self, mesh: str, api: Path) -> None:
        self._mesh = mesh
        self._api = api
        self._files = {entry.name: (entry.read_bytes(), _TYPES[Path(entry.name).suffix]) for entry in _STATIC.iterdir()}
        app = web.Application(middlewares=[_only_known_hosts])
        app.router.add_get("/", self._page, allow_head=False)
        app.router.add_get("/static/{name}", self._file, allow_head=False)
        for path in ("/graph", "/events", "/workloads/{namespace}/{kind}/{name}"):
            app.router.add_get(f"/api{path}", self._forward, allow_head=False)
        app.on_response_prepare.append(_add_headers)
        app.cleanup_ctx.append(self._client)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)

    async def start(self, address: str, port: int, *, any_port: bool = False) -> str:
        """Listen, and return the URL. With `any_port` this uses another port when `port` is taken. Raises OSError."""
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, address, port)
            await site.start()
        except OSError:
            if not any_port:
                raise
            site = web.TCPSite(self._runner, address, 0)
            await site.start()
        bound = self._runner.addresses[0][1]
        shown = f"[{address}]" if ":" in address else address
        return f"http://{shown}:{bound}/"

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _client(self, _: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._api)),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as self._session:
            yield

    async def _page(self, _: web.Request) -> web.Response:
        return self._send("index.html")

    async def _file(self, request: web.Request) -> web.Response:
        return self._send(request.match_info["name"])

    def _send(self, name: str) -> web.Response:
        if name not in self._files:
            raise web.HTTPNotFound
        body, kind = self._files[name]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _forward(self, request: web.Request) -> web.Response:
        # The path matched one of our routes; characters that are escaped in it stay escaped.
        path = request.rel_url.raw_path.removeprefix("/api")
        try:
            async with self._session.get(URL(f"http://daemon/mesh{path}", encoded=True)) as answer:
                body = await answer.read()
                if answer.status in (200, 404):
                    return web.Response(body=body, status=answer.status, content_type="application/json")
                problem = f"it answers with status {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            problem = str(error) or type(error).__name__
        return json_response({"missing": "daemon", "mesh": self._mesh, "message": problem}, 503)


def is_known_host(host: str) -> bool:
    """Whether a Host header is an IP address or localhost, and so no domain that someone else may point here."""
    try:
        name = URL(f"http://{host}").host or ""
    except ValueError:
        return False
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address to listen at. Raises OSError when it is not an address."""
    found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


@web.middleware
async def _only_known_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not is_known_host(request.headers.get("Host", "")):
        raise web.HTTPMisdirectedRequest(text="This dashboard is reached by an IP address or as localhost only.\n")
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
