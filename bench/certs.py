"""A throw-away CA and the X.509-SVIDs of the two pods: ECDSA P-256, one URI SAN each."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "bench.test"
_LIFETIME = datetime.timedelta(days=1)
_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class Svid:
    """An identity in PEM. The DNS SAN is for the plain pair: stock nginx cannot verify a SPIFFE ID."""

    spiffe_id: str
    dns_name: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return f"Svid({self.spiffe_id!r})"


@dataclass(frozen=True)
class Certificates:
    """What a pair needs: the root (PEM) and both pods' identities."""

    root: str
    client: Svid
    server: Svid


def issue(now: datetime.datetime) -> Certificates:
    """A new CA and two SVIDs, valid for a day around `now` (UTC)."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    root = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )

    def svid(account: str) -> Svid:
        key = ec.generate_private_key(ec.SECP256R1())
        spiffe_id = f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/{account}"
        dns_name = f"{account}.{TRUST_DOMAIN}"
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id), x509.DNSName(dns_name)]
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "bench")])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(subject, ca_name, key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Svid(spiffe_id, dns_name, _pem(certificate), pem.decode())

    return Certificates(_pem(root), svid("client"), svid("server"))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
