"""What the Kubernetes API servers that we test against have in common: HTTPS, one bearer token, a kubeconfig."""

import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from aiohttp import web

from .upstream.pki import make_ca, tls_certificate

TOKEN = "s3cr3t-bearer-token"  # noqa: S105


def is_authorised(request: web.Request) -> bool:
    """Whether a request comes with the token that is in the kubeconfig."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return (scheme.lower(), token) == ("bearer", TOKEN)


def status(code: int, reason: str, message: str) -> web.Response:
    """A failure, as the Kubernetes API conventions have it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return web.json_response({**body, "reason": reason, "message": message}, status=code)


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


@asynccontextmanager
async def serving(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]], directory: Path, kubeconfig: Path
) -> AsyncIterator[None]:
    """An API server on loopback whose requests `handle` answers, and its kubeconfig."""
    ca = make_ca("kubernetes")
    certificate = tls_certificate(ca)
    (directory / "server.pem").write_text(certificate.pem)
    (directory / "server.key").write_text(certificate.key_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        write_kubeconfig(kubeconfig, f"https://127.0.0.1:{runner.addresses[0][1]}", ca.pem)
        yield
    finally:
        await runner.cleanup()
