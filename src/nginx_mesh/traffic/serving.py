"""TLS of a server whose certificate, and the CA of whose clients, may change at any time."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography import x509
from prometheus_client import Gauge

from nginx_mesh.api.errors import FieldError, one_line
from nginx_mesh.identity.common.tls import LiveContext, harden, load_identity
from nginx_mesh.identity.common.workload import WorkloadContext, X509Svid

log = logging.getLogger(__name__)

_expiry = Gauge(
    "nginx_mesh_serving_certificate_expiry_timestamp_seconds",
    "When the serving certificate ends, seconds since the epoch.",
)


class Certificate(Protocol):
    """What the server proves itself by. Methods raise OSError and ValueError."""

    def stamp(self) -> object:
        """Another value when it is another certificate."""

    def load(self, context: ssl.SSLContext) -> float:
        """Give it to a context; when it expires, seconds since the epoch."""


class CertificateFiles:
    """A chain and its key in PEM files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key

    def stamp(self) -> object:
        """Of both files."""
        return _stamp(self._certificate), _stamp(self._key)

    def load(self, context: ssl.SSLContext) -> float:
        """Read them anew."""
        try:
            context.load_cert_chain(self._certificate, self._key)
        except ssl.SSLError:
            raise ValueError(f"{self._certificate}, {self._key}: not a certificate (PEM) and its key") from None
        return x509.load_pem_x509_certificates(self._certificate.read_bytes())[0].not_valid_after_utc.timestamp()


class WorkloadCertificate:
    """The SVID that the SPIFFE Workload API gives: `take` is for its client."""

    def __init__(self) -> None:
        self._svid: X509Svid | None = None

    def take(self, context: WorkloadContext) -> None:
        """What there is now; the first identity is ours."""
        self._svid = context.svids[0] if context.svids else None

    def stamp(self) -> object:
        """The SVID itself."""
        return self._svid

    def load(self, context: ssl.SSLContext) -> float:
        """Raises ValueError as long as there is none."""
        if self._svid is None:
            raise ValueError("the Workload API has given no SVID")
        load_identity(context, self._svid)
        return self._svid.chain[0].not_valid_after_utc.timestamp()


class Serving:
    """Contexts for connections, by what there is when they are made.

    What cannot be used is logged once, and the former is used on. Clients may have a certificate; one that is not of
    `client_ca` (PEM) ends the handshake.
    """

    def __init__(self, certificate: Certificate, client_ca: Path, clock: Callable[[], float] = time.time) -> None:
        self._certificate = certificate
        self._client_ca = client_ca
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._expires = 0.0
        self._seen: object = None
        self._fault = "there is none yet"

    def check_client_ca(self) -> None:
        """Raise FieldError unless the clients' CA can be used."""
        try:
            _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._client_ca)
        except (OSError, ValueError) as error:
            raise FieldError("--requestheader-client-ca-file", _said(error)) from None

    def refresh(self) -> str:
        """Take up what has changed; why there is no good certificate now, "" when there is. A part for observe."""
        try:
            seen = self._certificate.stamp(), _stamp(self._client_ca)
            if seen != self._seen:
                self._seen = seen
                self._context, self._expires = self._made()
                self._fault = ""
                _expiry.set(self._expires)
        except (OSError, ValueError) as error:
            if (fault := _said(error)) != self._fault:
                log.error("cannot change certificates: %s", fault)
                self._fault = fault
        if self._context is None:
            return self._fault
        return "" if self._expires > self._clock() else "the certificate has expired"

    def live(self) -> ssl.SSLContext:
        """For a server."""
        return LiveContext(ssl.PROTOCOL_TLS_SERVER, self._current)

    def _current(self) -> ssl.SSLContext:
        self.refresh()
        if self._context is None:
            raise ssl.SSLError("no certificate to present yet")
        return self._context

    def _made(self) -> tuple[ssl.SSLContext, float]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        harden(context)
        # Every connection proves itself.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_OPTIONAL
        _trust(context, self._client_ca)
        return context, self._certificate.load(context)


def _trust(context: ssl.SSLContext, roots: Path) -> None:
    try:
        context.load_verify_locations(roots)
    except ssl.SSLError:
        raise ValueError(f"{roots}: no certificates (PEM)") from None


def _stamp(path: Path) -> object:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{one_line(str(error.filename))}: {error.strerror}"
    return one_line(str(error))
