"""Signing our CA here, with a CA whose certificate and key we were given (`disk` and `awssecret`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from nginx_mesh.identity.common.keys import PrivateKey, from_pem
from nginx_mesh.identity.common.x509svid import SvidError, issue_intermediate

from . import checks
from .base import MintedCa, UpstreamError


@dataclass(frozen=True)
class Pem:
    """A PEM text, perhaps a private key, and where it came from, for messages."""

    source: str
    text: str = field(repr=False)


@dataclass(frozen=True, repr=False)
class SigningCa:
    """A CA that can sign ours: `path` leads from its certificate to the root that vouches for it, both included."""

    path: tuple[x509.Certificate, ...]
    key: PrivateKey
    roots: tuple[x509.Certificate, ...]

    def mint(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float, now: float) -> MintedCa:
        """Sign a CA. Raises UpstreamError."""
        try:
            serial = x509.random_serial_number()
            certificate = issue_intermediate(self.path[0], self.key, csr, not_before, not_after, serial)
        except SvidError as error:
            raise UpstreamError(str(error)) from None
        return checks.accept(csr, certificate, self.path, self.roots, now)


def load_signing_ca(certificate: Pem, key: Pem, bundle: Pem | None, now: float) -> SigningCa:
    """The CA in these texts. Raises UpstreamError when they do not fit together, or when it could not sign ours now.

    `certificate` begins with the CA's own. Intermediates may follow it, or be in `bundle` beside the roots. Without a
    bundle the root must be among the certificates; a self-signed CA is its own root.
    """
    own, *others = _certificates(certificate)
    try:
        private_key = from_pem(key.text)
    except ValueError as error:
        raise UpstreamError(f"{key.source}: {error}") from None
    if own.public_key() != private_key.public_key():
        raise UpstreamError(f"{key.source}: is not the key of the first certificate in {certificate.source}")
    if bundle is None:
        roots = roots_among(certificate)
    else:
        in_bundle = _certificates(bundle)
        roots = checks.self_signed(in_bundle)
        if not roots:
            raise UpstreamError(f"{bundle.source}: holds no root: none of its certificates is self-signed")
        others += in_bundle
    try:
        path = checks.find_path(own, others, checks.unexpired(roots, now), now, below=1)
    except UpstreamError as error:
        raise UpstreamError(f"{certificate.source}: {error}") from None
    return SigningCa(path, private_key, roots)


def roots_among(certificate: Pem) -> tuple[x509.Certificate, ...]:
    """The roots in the text that begins with the CA's own certificate. Raises UpstreamError when there are none."""
    own, *others = _certificates(certificate)
    roots = checks.self_signed([own, *others])
    if not roots:
        raise UpstreamError(
            f"{certificate.source}: {checks.called(own)} is not self-signed, and there is no bundle with its root"
        )
    return roots


def _certificates(pem: Pem) -> tuple[x509.Certificate, ...]:
    try:
        return checks.parse_certificates(pem.text)
    except ValueError as error:
        raise UpstreamError(f"{pem.source}: {error}") from None
