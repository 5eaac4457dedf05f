"""What the Kubernetes API servers that we test against have in common: HTTPS, one bearer token, a kubeconfig."""

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import yaml
from aiohttp import web

from tests.unit.identity.httpserver import serving

from .upstream.pki import make_ca, tls_certificate

TOKEN = "s3cr3t-bearer-token"  # noqa: S105


def status(code: int, reason: str, message: str) -> web.Response:
    """A failure, as the Kubernetes API conventions have it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return web.json_response({**body, "reason": reason, "message": message}, status=code)


def no_such_resource() -> web.Response:
    """The failure for a path that no resource is served at."""
    return status(404, "NotFound", "the server could not find the requested resource")


def write_kubeconfig(path: Path, address: str, ca_pem: str, token: str = TOKEN) -> None:
    """A kubeconfig that leads to one API server."""
    cluster = {"server": address, "certificate-authority-data": base64.b64encode(ca_pem.encode()).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(yaml.safe_dump(config))


@dataclass
class KubernetesServer:
    """A Kubernetes API server on the loopback interface. A subclass answers the requests that come with the token."""

    kubeconfig: Path = Path()
    """Leads to the server while it runs."""

    asked: list[str] = field(default_factory=list)
    """Method and path of each request so far."""

    async def respond(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    @asynccontextmanager
    async def running(self, directory: Path) -> AsyncIterator[Self]:
        """The server, which keeps its certificate and its kubeconfig in a directory."""
        ca = make_ca("kubernetes")
        certificate = tls_certificate(ca)
        (directory / "server.pem").write_text(certificate.pem)
        (directory / "server.key").write_text(certificate.key_pem)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        self.kubeconfig = directory / "kubeconfig"
        async with serving(self._handle, context) as address:
            write_kubeconfig(self.kubeconfig, address, ca.pem)
            yield self

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if (scheme.lower(), token) != ("bearer", TOKEN):
            return status(401, "Unauthorized", "Unauthorized")
        return await self.respond(request)
