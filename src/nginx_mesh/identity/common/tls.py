"""TLS between processes of the mesh: SVIDs and trust bundles from memory, peers known by SPIFFE ID.

The contexts made here are for asyncio, and so for aiohttp. Each connection has a context of its own, with the SVID and
the bundle of that moment, because both may rotate at any time. So no session is ever resumed on what another connection
proved. A peer is checked within the handshake, before anything else that it sends is read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nginx_mesh.api.spiffe import SpiffeId

from .bundle import TrustBundle
from .keys import to_pem
from .workload import X509Svid
from .x509svid import SvidError, certificate_pem, spiffe_id_of

SvidSource = Callable[[], X509Svid | None]
"""Gives the SVID to present now. While it gives None, no connection is made or taken."""
BundleSource = Callable[[], TrustBundle]
"""Gives the bundle that verifies peers now. Peers of other trust domains are refused, whoever signed them."""
Authorizer = Callable[[SpiffeId | None], str | None]
"""Says why a peer with this proved ID is refused, or None to accept it. A client without certificate has no ID."""

_VERIFY: dict[str, ssl.VerifyMode] = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
log = logging.getLogger(__name__)


def server_context(
    svid_source: SvidSource,
    bundle: BundleSource,
    authorise: Authorizer,
    client_certificate: Literal["required", "optional", "none"] = "required",
) -> ssl.SSLContext:
    """A context for servers. Refused clients are logged with the reason.

    With "none", neither `bundle` nor a client's certificate is looked at, and `authorise` is asked about None.
    """
    peers = _Peers(svid_source, bundle, authorise, _VERIFY[client_certificate])
    return LiveContext(ssl.PROTOCOL_TLS_SERVER, lambda: _context(ssl.PROTOCOL_TLS_SERVER, peers))


def client_context(
    svid_source: SvidSource | None, bundle: BundleSource, authorise: Authorizer, alpn: Sequence[str] = ()
) -> ssl.SSLContext:
    """A context for clients, which present an SVID unless `svid_source` is None. Host names are not checked.

    `alpn` are the protocols to offer. A server that is refused raises ssl.SSLCertVerificationError with the reason.
    """
    peers = _Peers(svid_source, bundle, authorise, ssl.CERT_REQUIRED, tuple(alpn))
    return LiveContext(ssl.PROTOCOL_TLS_CLIENT, lambda: _context(ssl.PROTOCOL_TLS_CLIENT, peers))


def peer_id(transport: asyncio.BaseTransport | None) -> SpiffeId | None:
    """Who the other end of an open connection proved to be. None without a certificate, or a context made here."""
    proved = transport.get_extra_info("ssl_object") if transport is not None else None
    return proved.peer_id if isinstance(proved, _Connection) else None


def load_identity(context: ssl.SSLContext, svid: X509Svid) -> None:
    """Give a context an SVID to present. The key touches no disk. Raises ssl.SSLError."""
    # Python hands keys to OpenSSL from files only. This file is in memory.
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - it has no path
        file.write(to_pem(svid.key))
        file.writelines(certificate_pem(certificate) for certificate in svid.chain)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def verified_id(certificate: x509.Certificate, trust_domain: str) -> SpiffeId:
    """The SPIFFE ID of a leaf whose chain verified for `trust_domain` (X509-SVID, 5.2).

    Raises SvidError for a certificate that is no leaf SVID of that trust domain.
    """
    spiffe_id = spiffe_id_of(certificate)
    if not spiffe_id.path:
        raise SvidError(f"{spiffe_id} is a trust domain, not a workload")
    if spiffe_id.trust_domain != trust_domain:
        raise SvidError(f"{spiffe_id} is not of the trust domain {trust_domain}")
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise SvidError(f"certificate of {spiffe_id} is that of a CA")
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise SvidError(f"certificate of {spiffe_id} has no key usage") from None
    if usage.key_cert_sign or usage.crl_sign or not usage.digital_signature:
        raise SvidError(f"key usage of the certificate of {spiffe_id} is not that of a leaf")
    return spiffe_id


class LiveContext(ssl.SSLContext):
    """A context without keys and roots, which makes each connection with the context that `current` gives then."""

    _current: Callable[[], ssl.SSLContext]

    def __new__(cls, protocol: int, current: Callable[[], ssl.SSLContext]) -> LiveContext:
        """A context for `ssl.PROTOCOL_TLS_CLIENT` or `ssl.PROTOCOL_TLS_SERVER`."""
        self = super().__new__(cls, protocol)
        self._current = current
        return self

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """As ssl.SSLContext.wrap_bio. What `current` raises is raised here."""
        return self._current().wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: object, **options: object) -> NoReturn:
        """Always raises: blocking sockets would bypass the checks of peers."""
        raise NotImplementedError("contexts of the mesh are for asyncio only")


def harden(context: ssl.SSLContext) -> None:
    """TLS 1.2 and 1.3 with forward secrecy and authenticated encryption."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")


@dataclass(frozen=True)
class _Peers:
    svid_source: SvidSource | None
    bundle: BundleSource
    authorise: Authorizer
    verify: ssl.VerifyMode
    alpn: tuple[str, ...] = ()


class _PeerContext(ssl.SSLContext):
    """The context of one connection."""

    sslobject_class: type[ssl.SSLObject]
    authorise: Authorizer
    trust_domain = ""


def _context(protocol: int, peers: _Peers) -> ssl.SSLContext:
    context = _PeerContext(protocol)
    harden(context)
    if peers.alpn:
        context.set_alpn_protocols(peers.alpn)
    context.sslobject_class = _Connection
    context.authorise = peers.authorise
    context.check_hostname = False
    context.verify_mode = peers.verify
    # Every certificate of a bundle is a trust anchor, whether it is self-signed or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if peers.verify != ssl.CERT_NONE:
        bundle = peers.bundle()
        context.trust_domain = bundle.trust_domain
        roots = [root.public_bytes(serialization.Encoding.DER) for root in bundle.x509_authorities]
        if roots:
            context.load_verify_locations(cadata=b"".join(roots))
    if peers.svid_source is not None:
        svid = peers.svid_source()
        if svid is None:
            raise ssl.SSLError("no SVID to present yet")
        load_identity(context, svid)
    return context


class _Connection(ssl.SSLObject):
    peer_id: SpiffeId | None = None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
            self.peer_id = self._authorised()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self.server_side:
                level = logging.DEBUG if getattr(error, "reason", "") in _NOISE else logging.WARNING
                log.log(level, "refused a TLS client: %s", error)
            raise

    def _authorised(self) -> SpiffeId | None:
        context = cast(_PeerContext, self.context)
        spiffe_id = None
        der = self.getpeercert(binary_form=True)
        try:
            if der is not None and context.verify_mode != ssl.CERT_NONE:
                spiffe_id = verified_id(x509.load_der_x509_certificate(der), context.trust_domain)
            reason = context.authorise(spiffe_id)
        except ValueError as error:
            raise _refusal(str(error)) from None
        except Exception as error:
            log.exception("a TLS peer cannot be judged")
            raise _refusal(f"{type(error).__name__} while judging it") from None
        if reason is not None:
            raise _refusal(f"{spiffe_id or 'without certificate'}: {reason}")
        return spiffe_id


def _refusal(reason: str) -> ssl.SSLCertVerificationError:
    return ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, f"peer is refused: {reason}")


# The errors that port scanners and plaintext clients cause.
_NOISE = frozenset(["HTTP_REQUEST", "WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "UNSUPPORTED_PROTOCOL"])
