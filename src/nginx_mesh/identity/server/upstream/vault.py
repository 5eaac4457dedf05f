"""The `vault` upstream authority: a PKI secrets engine of HashiCorp Vault signs our CA as an intermediate."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import hvac
import hvac.exceptions
import msgspec
import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from nginx_mesh.identity.common.x509svid import SvidError, spiffe_id_of

from . import checks
from .base import MintedCa, UpstreamError
from .calls import CONNECT_SECONDS, NO_ANSWER, READ_SECONDS, BlockingCalls, Remembered, innermost, quoted
from .config import VaultConfig, read_named_file, warn_of_open_key

log = logging.getLogger(__name__)

T = TypeVar("T")

_RENEW_AGAIN_SECONDS = 30.0
_SHORT_LEASE = 2.0
"""A token that lives no longer than so many seconds is not renewed."""

_HINTS: dict[type[Exception], str] = {
    hvac.exceptions.InvalidPath: "is the engine mounted there, and in this namespace?",
    hvac.exceptions.VaultDown: "Vault is sealed or in maintenance",
    hvac.exceptions.VaultNotInitialized: "Vault is not initialised",
}


class _Lease(msgspec.Struct):
    """What Vault says of a token at login, renewal and lookup. Times are seconds; 0 means that it never ends."""

    lease_duration: int = 0
    ttl: int = 0
    renewable: bool = False


class _Auth(msgspec.Struct):
    auth: _Lease


class _Lookup(msgspec.Struct):
    data: _Lease


class _Signed(msgspec.Struct):
    certificate: str
    issuing_ca: str = ""
    ca_chain: list[str] = []


class _SignedAnswer(msgspec.Struct):
    data: _Signed


@dataclass(frozen=True)
class _Session:
    """A client that has a token. Times are of `time.monotonic`, and infinite for a token that never ends."""

    client: Any
    expires_at: float
    renew_at: float


class VaultAuthority:
    """Asks Vault. Logs in when there is something to ask, renews its token, and logs in anew when that ends."""

    def __init__(self, config: VaultConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._calls = BlockingCalls(str(self))
        self._roots = Remembered[tuple[x509.Certificate, ...]]()
        self._session: _Session | None = None
        self._renewal: asyncio.Task[None] | None = None
        if config.insecure_skip_verify:
            log.warning("%s: its certificate is not checked (insecure_skip_verify); anybody could answer", self)
        elif config.vault_addr.startswith("http:"):
            log.warning("%s: is asked without TLS; anybody on the way could answer, and sees our credentials", self)

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        """See UpstreamAuthority."""
        minted = await self._calls.run("signing a CA", lambda: self._sign(csr, not_before, not_after))
        self._keep_token()
        return minted

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """See UpstreamAuthority."""
        return await self._roots.get(self._ask_roots)

    async def close(self) -> None:
        """See UpstreamAuthority."""
        if self._renewal is not None:
            self._renewal.cancel()
        self._forget()

    def __str__(self) -> str:
        return f"upstream authority vault ({self._config.vault_addr}, mount {self._config.pki_mount_point})"

    async def _ask_roots(self) -> tuple[x509.Certificate, ...]:
        roots = await self._calls.run("reading the roots", lambda: self._ask(self._read_roots))
        self._keep_token()
        return roots

    def _sign(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        now = self._clock()
        subject = csr.subject
        try:
            spiffe_id = spiffe_id_of(csr)
        except SvidError as error:
            raise UpstreamError(f"the CSR: {error}") from None
        wanted = {
            "format": "pem",
            "organization": _attribute(subject, NameOID.ORGANIZATION_NAME),
            "serial_number": _attribute(subject, NameOID.SERIAL_NUMBER),
            "exclude_cn_from_sans": True,
            "uri_sans": str(spiffe_id),
            "max_path_length": 0,
            "ttl": f"{max(int(not_after - now), 0)}s",
            "not_before_duration": f"{max(int(now - not_before), 0)}s",
        }
        pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        mount = self._config.pki_mount_point

        def ask(client: hvac.Client) -> object:
            name = _attribute(subject, NameOID.COMMON_NAME)
            return client.secrets.pki.sign_intermediate(pem, name, extra_params=wanted, mount_point=mount)

        signed = _read(_SignedAnswer, self._ask(ask)).data
        try:
            certificate = checks.parse_certificate(signed.certificate)
            others = [c for pem in (signed.issuing_ca, *signed.ca_chain) if pem for c in checks.parse_certificates(pem)]
        except ValueError as error:
            raise UpstreamError(f"the answer {error}") from None
        return checks.accept(csr, certificate, others, checks.self_signed(others), now)

    def _read_roots(self, client: hvac.Client) -> tuple[x509.Certificate, ...]:
        pki, mount = client.secrets.pki, self._config.pki_mount_point
        texts = (pki.read_ca_certificate(mount_point=mount), pki.read_ca_certificate_chain(mount_point=mount))
        try:
            found = [c for text in texts if text for c in checks.parse_certificates(str(text))]
        except ValueError as error:
            raise UpstreamError(f"the answer {error}") from None
        roots = checks.unexpired(checks.self_signed(found), self._clock())
        if not roots:
            raise UpstreamError("the engine's CA chain does not reach a root; import the root into the engine")
        return roots

    def _ask(self, question: Callable[[Any], T]) -> T:
        """The answer to a question. Logs in if need be, and once more when the token is refused."""
        had = self._session
        try:
            return self._explained(lambda: question(self._logged_in()))
        except _RefusedError:
            self._forget()
            if had is None or self._config.token_auth is not None:
                raise
        return self._explained(lambda: question(self._logged_in()))

    def _logged_in(self) -> Any:
        if self._session is None or time.monotonic() >= self._session.expires_at:
            self._forget()
            self._session = self._log_in()
        return self._session.client

    def _log_in(self) -> _Session:
        config = self._config
        client = self._new_client()
        if config.token_auth is not None:
            client.token = config.token_auth.token
            lookup = _read(_Lookup, client.auth.token.lookup_self()).data
            if lookup.ttl and not lookup.renewable:
                log.warning("%s: config.token_auth.token ends in %d s and cannot be renewed", self, lookup.ttl)
            return _session(client, lookup.ttl, lookup.renewable)
        if config.approle_auth is not None:
            role = config.approle_auth
            answer = client.auth.approle.login(
                role.approle_id, role.approle_secret_id, mount_point=role.approle_auth_mount_point
            )
        else:
            cert = config.cert_auth
            assert cert is not None  # noqa: S101 - the configuration has exactly one
            # hvac's own method for this always checks Vault's certificate, so it is not used.
            named = {} if cert.cert_auth_role_name is None else {"name": cert.cert_auth_role_name}
            answer = client.login(f"/v1/auth/{cert.cert_auth_mount_point}/login", json=named)
        lease = _read(_Auth, answer).auth
        return _session(client, lease.lease_duration, lease.renewable)

    def _new_client(self) -> hvac.Client:
        config, cert = self._config, self._config.cert_auth
        read_named_file("ca_cert_path", config.ca_cert_path)
        if cert is not None:
            read_named_file("cert_auth.client_cert_path", cert.client_cert_path)
            read_named_file("cert_auth.client_key_path", cert.client_key_path)
            warn_of_open_key(cert.client_key_path)
        # Empty values, not None, keep hvac from looking for tokens and certificates in the environment.
        client = hvac.Client(
            url=config.vault_addr,
            token="",
            namespace=config.namespace.rstrip("/"),
            verify=False if config.insecure_skip_verify else config.ca_cert_path,
            cert=() if cert is None else (cert.client_cert_path, cert.client_key_path),
            timeout=(CONNECT_SECONDS, READ_SECONDS),
        )
        if config.vault_addr.startswith("https:"):
            client.adapter.session.adapters.pop("http://")  # no redirect takes credentials out of TLS
        return client

    def _renew(self) -> None:
        session = self._session
        if session is not None:
            lease = _read(_Auth, self._explained(session.client.auth.token.renew_self)).auth
            self._session = _session(session.client, lease.lease_duration, lease.renewable)

    def _keep_token(self) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._renew_in_time())

    async def _renew_in_time(self) -> None:
        """Renew the token at half of its life for as long as Vault allows. The next question after that logs in."""
        while (session := self._session) is not None and session.renew_at != float("inf"):
            await asyncio.sleep(max(session.renew_at - time.monotonic(), 0))
            try:
                await self._calls.run("renewing the token", self._renew)
            except UpstreamError as error:
                log.warning("%s", error)
                if time.monotonic() >= session.expires_at:
                    return
                await asyncio.sleep(min(_RENEW_AGAIN_SECONDS, max(session.expires_at - time.monotonic(), 1) / 2))

    def _forget(self) -> None:
        if self._session is not None:
            self._session.client.adapter.close()
            self._session = None

    def _explained(self, function: Callable[[], T]) -> T:
        """What `function` returns. Errors of hvac become UpstreamErrors without secrets."""
        try:
            return function()
        except hvac.exceptions.VaultError as error:
            said = "; ".join(str(e) for e in error.errors or ()) or error.text or "no reason given"
            hint = next((f" ({hint})" for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
            message = f"Vault refuses: {self._quoted(said)}{hint}"
            if isinstance(error, hvac.exceptions.Forbidden):
                mount = self._config.pki_mount_point
                raise _RefusedError(
                    f"{message} (is the credential valid, and does its policy allow update on "
                    f"{mount}/root/sign-intermediate?)"
                ) from None
            raise UpstreamError(message) from None
        except requests.exceptions.SSLError as error:
            hint = "config.ca_cert_path must hold the CA of Vault's certificate"
            raise UpstreamError(f"TLS fails: {self._quoted(innermost(error))} ({hint})") from None
        except requests.exceptions.Timeout:
            raise UpstreamError(NO_ANSWER) from None
        except requests.exceptions.RequestException as error:
            raise UpstreamError(f"cannot be reached: {self._quoted(innermost(error))}") from None

    def _quoted(self, text: str) -> str:
        config = self._config
        secrets = [config.token_auth.token] if config.token_auth else []
        secrets += [config.approle_auth.approle_secret_id] if config.approle_auth else []
        if self._session is not None:
            secrets.append(self._session.client.token)
        return quoted(text, secrets)


class _RefusedError(UpstreamError):
    """Vault does not know who we are, or does not allow us what we asked."""


def _session(client: hvac.Client, seconds: int, renewable: bool) -> _Session:
    now = time.monotonic()
    expires_at = now + seconds if seconds > 0 else float("inf")
    return _Session(client, expires_at, now + seconds / 2 if renewable and seconds > _SHORT_LEASE else float("inf"))


def _read(kind: type[T], answer: object) -> T:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise UpstreamError(f"the answer is not one of Vault: {error}") from None


def _attribute(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return ",".join(str(attribute.value) for attribute in name.get_attributes_for_oid(oid))
