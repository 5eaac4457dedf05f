"""X.509-SVIDs and the certificates that sign them, as the SPIFFE X509-SVID standard and RFC 5280 define them.

Pure: keys, serials and times are arguments. Times are Unix seconds; certificates hold whole seconds, rounded down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError

from .keys import PrivateKey, PublicKey, key_type_of, signature_hash

CLOCK_SKEW = 300
"""Seconds by which certificates are backdated, for verifiers whose clock is behind ours."""

_ORGANIZATION = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nginx-mesh")
_LEAF_SUBJECT = x509.Name([_ORGANIZATION])
_LEAF_CONSTRAINTS = x509.BasicConstraints(ca=False, path_length=None)
_LEAF_EXTENDED_USAGE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
# Only SVIDs are below our CA, never another CA.
_CA_CONSTRAINTS = x509.BasicConstraints(ca=True, path_length=0)

_MAX_DNS_NAME = 253
_DNS_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


class SvidError(ValueError):
    """A certificate that cannot be issued, or is not an SVID. The message names the reason."""


@dataclass(frozen=True)
class Signer:
    """A CA certificate and its private key. No certificate that it signs is valid beyond `limit` (Unix seconds)."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    limit: float = float("inf")

    @cached_property
    def spiffe_id(self) -> SpiffeId:
        """The trust domain that this CA signs for."""
        return spiffe_id_of(self.certificate)

    @cached_property
    def authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """The extension by which certificates of this CA name it."""
        return _authority_key_identifier(self.certificate)


def issue_authority(
    key: PrivateKey, trust_domain: str, not_before: float, not_after: float, serial: int
) -> x509.Certificate:
    """A self-signed CA certificate for `trust_domain`. Raises SpiffeIdError, SvidError.

    It has no name constraints: the standard leaves URI constraints optional, and many verifiers reject a critical
    extension that they cannot check.
    """
    subject = _authority_name(serial)
    public_key = key.public_key()
    return (
        _builder(subject, subject, public_key, not_before, not_after, serial)
        .add_extension(_CA_CONSTRAINTS, critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(_alternative_names(SpiffeId(trust_domain), ()), critical=False)
        .sign(key, signature_hash(key))
    )


def request_authority(key: PrivateKey, trust_domain: str, serial: int) -> x509.CertificateSigningRequest:
    """What an upstream authority is asked to sign: a CA for `trust_domain`. `serial` only makes its name its own."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_authority_name(serial))
        .add_extension(_CA_CONSTRAINTS, critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(_alternative_names(SpiffeId(trust_domain), ()), critical=False)
        .sign(key, signature_hash(key))
    )


def request_svid(key: PrivateKey, spiffe_id: SpiffeId | None) -> x509.CertificateSigningRequest:
    """A CSR for an SVID with this key. With `spiffe_id` None, the SVID gets the ID that is registered."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_LEAF_SUBJECT)
    if spiffe_id is not None:
        request = request.add_extension(_alternative_names(spiffe_id, ()), critical=False)
    return request.sign(key, signature_hash(key))


def issue_intermediate(
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    csr: x509.CertificateSigningRequest,
    not_before: float,
    not_after: float,
    serial: int,
) -> x509.Certificate:
    """The CA that a CSR of `request_authority` asks for, with its validity cut to the issuer's and path length 0.

    Raises SvidError when the CSR is not signed by its own key, its key is of a type that we do not use, it names no
    trust domain, or nothing is left of the validity. Whether the issuer may have a CA below it is not checked.
    """
    if not csr.is_signature_valid:
        raise SvidError("the CSR is not signed by the key that it holds")
    public_key = csr.public_key()
    try:
        key_type_of(public_key)
    except ValueError as error:
        raise SvidError(str(error)) from None
    assert isinstance(public_key, PublicKey)  # noqa: S101 - what key_type_of just established
    spiffe_id = spiffe_id_of(csr)
    if spiffe_id.path:
        raise SvidError(f"{spiffe_id} is a workload's ID; a CA carries its trust domain's")
    not_before = max(not_before, issuer.not_valid_before_utc.timestamp())
    not_after = min(not_after, issuer.not_valid_after_utc.timestamp())
    return (
        _builder(csr.subject, issuer.subject, public_key, not_before, not_after, serial)
        .add_extension(_CA_CONSTRAINTS, critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(_authority_key_identifier(issuer), critical=False)
        .add_extension(_alternative_names(spiffe_id, ()), critical=False)
        .sign(issuer_key, signature_hash(issuer_key))
    )


def issue_svid(
    signer: Signer,
    public_key: PublicKey,
    spiffe_id: SpiffeId,
    dns_names: Sequence[str],
    not_before: float,
    not_after: float,
    serial: int,
) -> x509.Certificate:
    """A leaf X.509-SVID whose validity is what is asked for, cut to that of the CA.

    `dns_names` are lower-case DNS names without wildcards; duplicates are dropped. Raises SvidError when nothing is
    left of the validity, a DNS name is malformed, the ID is outside the CA's trust domain or has no path, or the key
    is of a type that we do not use.
    """
    if spiffe_id.trust_domain != signer.spiffe_id.trust_domain:
        raise SvidError(f"{spiffe_id} is outside the CA's trust domain {signer.spiffe_id.trust_domain}")
    if not spiffe_id.path:
        raise SvidError(f"{spiffe_id} has no path; only a CA may carry the trust domain's own ID")
    try:
        key_type_of(public_key)
    except ValueError as error:
        raise SvidError(str(error)) from None
    issuer = signer.certificate
    not_before = max(not_before, issuer.not_valid_before_utc.timestamp())
    not_after = min(not_after, issuer.not_valid_after_utc.timestamp(), signer.limit)
    return (
        _builder(_LEAF_SUBJECT, issuer.subject, public_key, not_before, not_after, serial)
        .add_extension(_LEAF_CONSTRAINTS, critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(_LEAF_EXTENDED_USAGE, critical=False)
        .add_extension(signer.authority_key_identifier, critical=False)
        .add_extension(_alternative_names(spiffe_id, dns_names), critical=False)
        .sign(signer.key, signature_hash(signer.key))
    )


def spiffe_id_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> SpiffeId:
    """The SPIFFE ID in the only URI SAN of a certificate or of a request for one. Raises SvidError."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise SvidError("certificate has no subject alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise SvidError(f"certificate has {len(uris)} URI names; an SVID has exactly one")
    try:
        return SpiffeId.parse(uris[0])
    except SpiffeIdError as error:
        raise SvidError(str(error)) from None


def check_dns_names(names: Sequence[str]) -> None:
    """Raise SvidError unless all are lower-case DNS names without wildcards."""
    for name in names:
        if len(name) > _MAX_DNS_NAME or not _DNS_NAME.fullmatch(name):
            raise SvidError(f"{name[:_MAX_DNS_NAME]!r} is not a lower-case DNS name")


def certificate_pem(certificate: x509.Certificate) -> str:
    """The certificate as PEM (RFC 7468)."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def certificates_pem(certificates: Iterable[x509.Certificate]) -> str:
    """Certificates as PEM, one after the other."""
    return "".join(map(certificate_pem, certificates))


def certificate_der(certificate: x509.Certificate) -> bytes:
    """The certificate as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def subject_key_id(certificate: x509.Certificate) -> str:
    """The subject key identifier (RFC 5280, 4.2.1.2) in hexadecimal.

    For a certificate without one, which only others make, it is the SHA-1 of the public key as that section has it.
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        found = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    return found.digest.hex()


def authority_key_id(certificate: x509.Certificate) -> str:
    """The authority key identifier (RFC 5280, 4.2.1.1) in hexadecimal, "" without one. It names the issuer's key."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return ""
    return (found or b"").hex()


def _authority_name(serial: int) -> x509.Name:
    """The subject of a CA. Each CA has another, because verifiers look for an issuer by name first."""
    return x509.Name(
        [
            _ORGANIZATION,
            x509.NameAttribute(NameOID.COMMON_NAME, "nginx-mesh CA"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}"),
        ]
    )


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:  # a CA that is not ours may lack it
        public_key = issuer.public_key()
        assert isinstance(public_key, PublicKey)  # noqa: S101 - the public half of a key that signs here
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski.value)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, not_before: float, not_after: float, serial: int
) -> x509.CertificateBuilder:
    start, end = _instant(not_before), _instant(not_after)
    if start >= end:
        raise SvidError(f"validity is empty: from {start.isoformat()} to {end.isoformat()}")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(spiffe_id: SpiffeId, dns_names: Sequence[str]) -> x509.SubjectAlternativeName:
    check_dns_names(dns_names)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    names += [x509.DNSName(name) for name in dict.fromkeys(dns_names)]
    return x509.SubjectAlternativeName(names)
