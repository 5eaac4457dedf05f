"""TLS for a server whose certificate and client CA may change while it runs."""

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
    """The serving certificate. Methods raise OSError and ValueError."""

    def stamp(self) -> object:
        """A value that differs when the certificate has changed."""

    def load(self, context: ssl.SSLContext) -> float:
        """Load the certificate into a context, and return when it expires, in seconds since the epoch."""


class CertificateFiles:
    """A certificate chain and its key in PEM files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key

    def stamp(self) -> object:
        """A stamp of both files."""
        return _stamp(self._certificate), _stamp(self._key)

    def load(self, context: ssl.SSLContext) -> float:
        """Load both files."""
        try:
            context.load_cert_chain(self._certificate, self._key)
        except ssl.SSLError:
            raise ValueError(f"{self._certificate}, {self._key}: not a certificate (PEM) and its key") from None
        return x509.load_pem_x509_certificates(self._certificate.read_bytes())[0].not_valid_after_utc.timestamp()


class WorkloadCertificate:
    """The SVID that the SPIFFE Workload API gives. Its client calls `update`."""

    def __init__(self) -> None:
        self._svid: X509Svid | None = None

    def update(self, context: WorkloadContext) -> None:
        """Take the first SVID of the response, which is the default identity."""
        self._svid = context.svids[0] if context.svids else None

    def stamp(self) -> object:
        """The SVID itself, as each update has its own."""
        return self._svid

    def load(self, context: ssl.SSLContext) -> float:
        """Load the SVID. Raises ValueError while there is none."""
        if self._svid is None:
            raise ValueError("the Workload API has given no SVID")
        load_identity(context, self._svid)
        return self._svid.chain[0].not_valid_after_utc.timestamp()


class ServingTls:
    """TLS contexts of a server, always with the newest certificate and client CA.

    When a new certificate or CA cannot be used, this is logged once, and the previous ones stay in use. Clients may
    have no certificate, but the handshake fails for one that `client_ca` (PEM) did not issue.
    """

    def __init__(self, certificate: Certificate, client_ca: Path, clock: Callable[[], float] = time.time) -> None:
        self._certificate = certificate
        self._client_ca = client_ca
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._expires = 0.0
        self._loaded: object = None
        self._fault = "there is none yet"

    def check_client_ca(self) -> None:
        """Raise FieldError unless the client CA can be used."""
        try:
            _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._client_ca)
        except (OSError, ValueError) as error:
            raise FieldError("--requestheader-client-ca-file", _reason(error)) from None

    def refresh(self) -> str:
        """Load what has changed. The reason why there is no valid certificate now, "" when there is (observe.Part)."""
        try:
            stamp = self._certificate.stamp(), _stamp(self._client_ca)
            if stamp != self._loaded:
                self._loaded = stamp
                self._context, self._expires = self._new_context()
                self._fault = ""
                _expiry.set(self._expires)
        except (OSError, ValueError) as error:
            if (fault := _reason(error)) != self._fault:
                log.error("cannot change certificates: %s", fault)
                self._fault = fault
        if self._context is None:
            return self._fault
        return "" if self._expires > self._clock() else "the certificate has expired"

    def live(self) -> ssl.SSLContext:
        """A context for the server, which uses the newest certificate for each connection."""
        return LiveContext(ssl.PROTOCOL_TLS_SERVER, self._current)

    def _current(self) -> ssl.SSLContext:
        self.refresh()
        if self._context is None:
            raise ssl.SSLError("no certificate to present yet")
        return self._context

    def _new_context(self) -> tuple[ssl.SSLContext, float]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        harden(context)
        # Without resumption, the client certificate is verified for every connection.
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


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{one_line(str(error.filename))}: {error.strerror}"
    return one_line(str(error))
