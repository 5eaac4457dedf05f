"""Vaults to test against: a server of ours that keeps to the documented wire contract, and HashiCorp's where it is.

Ours answers as https://developer.hashicorp.com/vault/api-docs says for the few paths that the plugin uses, with the
same error bodies, and refuses what lacks a header that Vault wants. It signs for real.
"""

import asyncio
import os
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hvac
from aiohttp import web
from cryptography import x509

from nginx_mesh.identity.common.keys import to_pem
from nginx_mesh.identity.common.x509svid import certificate_pem
from tests.unit.identity.httpserver import serving

from .pki import Ca, answer, bundle_pem, make_ca, tls_certificate, uri

NAMESPACE = "teams/mesh"
ROLE_NAME = "mesh"
POLICY = """
path "pki/root/sign-intermediate" { capabilities = ["update"] }
"""


@dataclass
class KeyPair:
    """Files of a certificate and its key."""

    cert_path: Path
    key_path: Path


class Certificates:
    """The CA that a Vault signs with, the root above it, and TLS certificates of two clients.

    Vault lets `client` log in. `stranger` is below a CA that it does not trust.
    """

    def __init__(self, directory: Path) -> None:
        self.root = make_ca("company root")
        self.issuer = make_ca("company issuing", self.root, path_length=1)
        self.client_ca, self.stranger_ca = make_ca("clients"), make_ca("strangers")
        self.client = _write(directory, "client", tls_certificate(self.client_ca, "mesh", client=True))
        self.stranger = _write(directory, "stranger", tls_certificate(self.stranger_ca, "mesh", client=True))
        self.server_ca_path = directory / "vault-ca.pem"
        """The roots that Vault's own certificate is below, once it runs."""


@dataclass
class Site:
    """A Vault, and everybody who may log in."""

    address: str
    namespace: str
    certificates: "Certificates"
    role_id: str
    secret_id: str
    new_token: Callable[[int, bool], str]
    """Seconds (0: for ever) and whether it may sign → a token that can be renewed."""

    revoke: Callable[[str], None]
    ours: "FakeVault | None" = None

    def config(self, **more: Any) -> dict[str, Any]:
        ca = str(self.certificates.server_ca_path)
        return {"vault_addr": self.address, "namespace": self.namespace, "ca_cert_path": ca, **more}

    def token(self, token: str) -> dict[str, Any]:
        return self.config(token_auth={"token": token})

    def approle(self, secret_id: str | None = None) -> dict[str, Any]:
        secret = self.secret_id if secret_id is None else secret_id
        return self.config(approle_auth={"approle_id": self.role_id, "approle_secret_id": secret})

    def cert(self, stranger: bool = False) -> dict[str, Any]:
        pair = self.certificates.stranger if stranger else self.certificates.client
        paths = {"client_cert_path": str(pair.cert_path), "client_key_path": str(pair.key_path)}
        return self.config(cert_auth={**paths, "cert_auth_role_name": ROLE_NAME})


@dataclass
class Token:
    """A token of our server: until when (monotonic seconds) it counts, for how long it is renewed, and what it may."""

    seconds: int
    signs: bool = True
    expires_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.expires_at = time.monotonic() + self.seconds if self.seconds else float("inf")


@dataclass
class FakeVault:
    """What our server knows, and what a test makes it do wrong."""

    issuer: Ca
    root: Ca
    client_ca: Ca
    role_id: str = field(default_factory=lambda: secrets.token_hex(8))
    secret_id: str = field(default_factory=lambda: secrets.token_hex(8))
    tokens: dict[str, Token] = field(default_factory=dict)
    login_seconds: int = 3600
    sealed: bool = False
    delay: float = 0
    drip: bool = False
    body: str | None = None
    """Instead of any answer of the PKI engine."""

    wrong: dict[str, Any] = field(default_factory=dict)
    """Arguments for `pki.answer`."""

    chain: list[Ca] | None = None
    redirect: str | None = None
    echo: bool = False
    """Quote what was sent in the refusal of a login."""

    login_tokens: list[str | None] = field(default_factory=list)
    """Tokens that came with logins, which need none."""

    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def new_token(self, seconds: int, signs: bool) -> str:
        token = f"hvs.{secrets.token_hex(12)}"
        self.tokens[token] = Token(seconds, signs)
        return token

    def revoke(self, token: str) -> None:
        del self.tokens[token]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, method = request.path, request.method
        if request.headers.get("X-Vault-Request") != "true":
            return _errors(412, "required 'X-Vault-Request' header is missing")
        if request.headers.get("X-Vault-Namespace") != NAMESPACE:
            return _errors(404, f'no handler for route "{path.removeprefix("/v1/")}". route entry not found.')
        body = await request.json() if request.can_read_body else {}
        self.asked.append((method, path, body))
        if self.redirect is not None:
            raise web.HTTPTemporaryRedirect(self.redirect + path)
        if self.sealed:
            return _errors(503, "Vault is sealed")
        if path.endswith("/login"):
            self.login_tokens.append(request.headers.get("X-Vault-Token"))
            if self.echo:
                return _errors(400, f"cannot make sense of {body}")
        match method, path:
            case "POST", "/v1/auth/approle/login":
                if (body.get("role_id"), body.get("secret_id")) != (self.role_id, self.secret_id):
                    return _errors(400, "invalid role or secret ID")
                return self._login()
            case "POST", "/v1/auth/cert/login":
                if not _client_of(request, self.client_ca):
                    return _errors(400, "invalid certificate or no client certificate supplied")
                if body.get("name") not in (None, ROLE_NAME):
                    return _errors(400, "invalid certificate or no client certificate supplied")
                return self._login()
            case "GET", "/v1/pki/ca/pem":
                return await self._engine(request, self.issuer.pem)
            case "GET", "/v1/pki/ca_chain":
                return await self._engine(request, bundle_pem([self.issuer.certificate, self.root.certificate]))
        token = self.tokens.get(request.headers.get("X-Vault-Token", ""))
        if token is None or time.monotonic() >= token.expires_at:
            return _errors(403, "permission denied", "invalid token")
        match method, path:
            case "GET", "/v1/auth/token/lookup-self":
                left = 0 if token.seconds == 0 else int(token.expires_at - time.monotonic())
                return _json({"auth": None, "data": {"ttl": left, "renewable": token.seconds > 0, "type": "service"}})
            case "POST", "/v1/auth/token/renew-self":
                token.renew()
                found = request.headers["X-Vault-Token"]
                return _auth(found, token.seconds)
            case "POST", "/v1/pki/root/sign-intermediate":
                if not token.signs:
                    return _errors(403, "1 error occurred:\n\t* permission denied\n\n")
                return await self._engine(request, self._sign(body))
        if not token.signs:
            return _errors(403, "1 error occurred:\n\t* permission denied\n\n")
        return _errors(404, f'no handler for route "{path.removeprefix("/v1/")}". route entry not found.')

    def _login(self) -> web.Response:
        return _auth(self.new_token(self.login_seconds, True), self.login_seconds)

    def _sign(self, body: dict[str, Any]) -> dict[str, Any]:
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        assert body["common_name"]
        assert body["uri_sans"] == "spiffe://example.org"
        assert body["max_path_length"] == 0
        assert body["exclude_cn_from_sans"] is True
        now = time.time()
        arguments: dict[str, Any] = {
            "start": now - int(body["not_before_duration"].removesuffix("s")),
            "end": now + int(body["ttl"].removesuffix("s")),
            "uris": [uri(body["uri_sans"])],
        }
        own = certificate_pem(answer(csr, self.issuer, **{**arguments, **self.wrong}))
        chain = [self.issuer, self.root] if self.chain is None else self.chain
        pems = [ca.pem.strip() for ca in chain]
        data = {"certificate": own.strip(), "issuing_ca": pems[0], "ca_chain": [*pems], "serial_number": "00:01"}
        return {"request_id": "1", "lease_id": "", "renewable": False, "lease_duration": 0, "data": data, "auth": None}

    async def _engine(self, request: web.Request, good: dict[str, Any] | str) -> web.StreamResponse:
        await asyncio.sleep(self.delay)
        if self.drip:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        if self.body is not None:
            return web.Response(text=self.body, content_type="application/json")
        if isinstance(good, str):
            return web.Response(text=good, content_type="application/pem-certificate-chain")
        return _json(good)


def _client_of(request: web.Request, ca: Ca) -> bool:
    assert request.transport is not None
    tls = request.transport.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    if der is None:
        return False
    try:
        x509.load_der_x509_certificate(der).verify_directly_issued_by(ca.certificate)
    except Exception:
        return False
    return True


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response(
        body, status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def _errors(status: int, *errors: str) -> web.Response:
    response = _json({"errors": list(errors)}, status)
    response.headers["Content-Type"] = "application/json"
    return response


def _auth(token: str, seconds: int) -> web.Response:
    return _json({"auth": {"client_token": token, "lease_duration": seconds, "renewable": seconds > 0}})


def _write(directory: Path, name: str, ca: Ca) -> KeyPair:
    pair = KeyPair(directory / f"{name}.pem", directory / f"{name}.key")
    pair.cert_path.write_text(ca.pem)
    pair.key_path.write_text(ca.key_pem)
    pair.key_path.chmod(0o600)
    return pair


@asynccontextmanager
async def our_vault(directory: Path) -> AsyncIterator[Site]:
    certificates, server_ca = Certificates(directory), make_ca("vault tls")
    vault = FakeVault(certificates.issuer, certificates.root, certificates.client_ca)
    certificates.server_ca_path.write_text(server_ca.pem)
    server = _write(directory, "server", tls_certificate(server_ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.cert_path, server.key_path)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=certificates.client_ca.pem + certificates.stranger_ca.pem)
    async with serving(vault.handle, context) as address:
        new_token, revoke = vault.new_token, vault.revoke
        yield Site(address, NAMESPACE, certificates, vault.role_id, vault.secret_id, new_token, revoke, vault)


@asynccontextmanager
async def real_vault(directory: Path, program: str) -> AsyncIterator[Site]:
    """HashiCorp's dev server on a port of its own, in memory, with a PKI engine and the three ways to log in."""
    certificates, root_token = Certificates(directory), secrets.token_hex(16)
    root, issuer = certificates.root, certificates.issuer
    port = _free_port()
    address = f"https://127.0.0.1:{port}"
    arguments = ["server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={directory}", "-dev-no-store-token"]
    arguments += [f"-dev-root-token-id={root_token}", f"-dev-listen-address=127.0.0.1:{port}"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    with (directory / "vault.log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log, env=environment, cwd=directory)
    try:
        client = await asyncio.to_thread(_when_up, process, address, certificates.server_ca_path, root_token)

        def set_up() -> tuple[str, str]:
            client.sys.enable_secrets_engine("pki", config={"max_lease_ttl": "720h"})
            client.write_data("pki/config/ca", data={"pem_bundle": to_pem(issuer.key) + issuer.pem + root.pem})
            client.sys.create_or_update_policy(ROLE_NAME, POLICY)
            client.sys.enable_auth_method("approle")
            client.auth.approle.create_or_update_approle(ROLE_NAME, token_policies=[ROLE_NAME])
            client.sys.enable_auth_method("cert")
            data = {"certificate": certificates.client_ca.pem, "token_policies": ROLE_NAME, "token_ttl": "1h"}
            client.write_data(f"auth/cert/certs/{ROLE_NAME}", data=data)
            role_id = client.auth.approle.read_role_id(ROLE_NAME)["data"]["role_id"]
            return role_id, client.auth.approle.generate_secret_id(ROLE_NAME)["data"]["secret_id"]

        role_id, secret_id = await asyncio.to_thread(set_up)

        def new_token(seconds: int, signs: bool) -> str:
            ttl = f"{seconds}s" if seconds else None
            policies = [ROLE_NAME] if signs else ["default"]
            created = client.auth.token.create(policies=policies, ttl=ttl, renewable=True, no_parent=True)
            return str(created["auth"]["client_token"])

        yield Site(address, "", certificates, role_id, secret_id, new_token, client.auth.token.revoke)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


def _when_up(process: "subprocess.Popen[bytes]", address: str, ca_path: Path, token: str) -> hvac.Client:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "vault ended"
        assert time.monotonic() < deadline, "vault does not answer"
        if ca_path.exists():
            client = hvac.Client(url=address, token=token, verify=str(ca_path), timeout=10)
            try:
                if client.sys.read_health_status(method="GET") and client.is_authenticated():
                    return client
            except Exception:  # noqa: S110 - not yet
                pass
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
