"""Certificate authorities of other people, well made or not, for upstream authorities to be tested with."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nginx_mesh.api.spiffe import workload_id
from nginx_mesh.identity.common.keys import PrivateKey, generate_key, to_pem
from nginx_mesh.identity.common.x509svid import Signer, certificate_pem, issue_svid, request_authority
from nginx_mesh.identity.server.upstream import MintedCa
from tests.unit.identity.chains import PURPOSES, openssl_verify

NOW = int(time.time())
DAY = 86_400
TRUST_DOMAIN = "example.org"
TRUST_DOMAIN_URI = x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}")
LEAF_KEY = generate_key("ec-p256")


@dataclass(frozen=True)
class Ca:
    """A CA and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> str:
        return certificate_pem(self.certificate)

    @property
    def key_pem(self) -> str:
        return to_pem(self.key)


def key_usage(**given: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = dict.fromkeys((*names, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**(usage | given))


CA_USAGE = key_usage(key_cert_sign=True, crl_sign=True)


def sign(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    issuer: Ca | None,
    key: PrivateKey,
    *,
    start: float = NOW - DAY,
    end: float = NOW + 30 * DAY,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    digest: hashes.HashAlgorithm | None = None,
) -> x509.Certificate:
    """A certificate with exactly these extensions and key identifiers."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(start), UTC))
        .not_valid_after(datetime.fromtimestamp(int(end), UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, digest or hashes.SHA256())  # type: ignore[arg-type]


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def make_ca(
    common_name: str,
    issuer: Ca | None = None,
    *,
    key: PrivateKey | None = None,
    path_length: int | None = None,
    ca: bool = True,
    usage: x509.KeyUsage | None = CA_USAGE,
    start: float = NOW - DAY,
    end: float = NOW + 30 * DAY,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Ca:
    """A CA, self-signed without an issuer."""
    key = key or generate_key("ec-p256")
    extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(ca, path_length), True), *more]
    if usage is not None:
        extensions.append((usage, True))
    signing = issuer.key if issuer else key
    public = key.public_key()
    return Ca(sign(name(common_name), public, issuer, signing, start=start, end=end, extensions=extensions), key)


def answer(
    csr: x509.CertificateSigningRequest,
    issuer: Ca,
    *,
    public_key: ec.EllipticCurvePublicKey | None = None,
    uris: Sequence[x509.GeneralName] = (TRUST_DOMAIN_URI,),
    ca: bool = True,
    path_length: int | None = 0,
    usage: x509.KeyUsage | None = CA_USAGE,
    start: float = NOW - 300,
    end: float = NOW + 3600,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: PrivateKey | None = None,
) -> x509.Certificate:
    """What an upstream answers to a CSR: right but for what a test makes wrong. `key` signs in the issuer's name."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca, path_length if ca else None), True),
        *more,
    ]
    if uris:
        extensions.append((x509.SubjectAlternativeName(uris), False))
    if usage is not None:
        extensions.append((usage, True))
    own = csr.public_key()
    assert isinstance(own, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return sign(csr.subject, public_key or own, issuer, key or issuer.key, start=start, end=end, extensions=extensions)


def tls_certificate(
    issuer: Ca, common_name: str = "localhost", *, key: PrivateKey | None = None, client: bool = False
) -> Ca:
    """A TLS server's certificate for 127.0.0.1, or a client's, with its key."""
    key = key or generate_key("ec-p256")
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(False, None), True),
        (key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([purpose]), False),
        (x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost")]), False),
    ]
    return Ca(sign(name(common_name), key.public_key(), issuer, issuer.key, extensions=extensions), key)


@dataclass(frozen=True)
class Request:
    """A CSR for a CA of ours, and its key."""

    key: PrivateKey
    csr: x509.CertificateSigningRequest


def request(key: PrivateKey | None = None, trust_domain: str = TRUST_DOMAIN) -> Request:
    key = key or generate_key("ec-p256")
    return Request(key, request_authority(key, trust_domain, x509.random_serial_number()))


def csr_pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def bundle_pem(certificates: Sequence[x509.Certificate]) -> str:
    return "".join(certificate_pem(c) for c in certificates)


def svid_chain(minted: MintedCa, key: PrivateKey, at: float = NOW) -> str:
    """An SVID below a minted CA, as its holder presents it: the leaf and what leads to, but not includes, a root."""
    signer = Signer(minted.chain[0], key, minted.limit)
    web = workload_id(TRUST_DOMAIN, "shop", "web")
    svid = issue_svid(signer, LEAF_KEY.public_key(), web, ["web.shop.svc"], at - 60, at + 600, 5)
    return bundle_pem([svid, *minted.chain])


def assert_openssl_accepts(directory: Path, minted: MintedCa, key: PrivateKey, at: float = NOW) -> None:
    """`at` is Unix seconds: the present for an upstream that dates its certificates by the real clock."""
    chain = svid_chain(minted, key, at)
    for purpose in PURPOSES:
        assert openssl_verify(directory, chain, bundle_pem(minted.roots), purpose, at) == ""


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


WRONG_ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({"public_key": generate_key("ec-p256").public_key()}, "for another key"),
    ({"uris": [uri("spiffe://evil.org")]}, "is for spiffe://evil.org, not for spiffe://example.org"),
    ({"ca": False}, "is no CA"),
    ({"key": generate_key("ec-p256")}, "did not sign it"),
    ({"start": NOW - 9 * DAY, "end": NOW - DAY}, "expired at"),
]
"""Arguments of `answer` that make a certificate which every upstream authority has to refuse, and the reason."""

GO_VERIFIER = """
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

func certificates(path string) (found []*x509.Certificate) {
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic(err)
		}
		found = append(found, certificate)
	}
	return found
}

// Arguments: pairs of files, a chain beginning with its leaf and the roots to trust.
func main() {
	failed := false
	for i := 1; i+1 < len(os.Args); i += 2 {
		chain, roots, others := certificates(os.Args[i]), x509.NewCertPool(), x509.NewCertPool()
		for _, root := range certificates(os.Args[i+1]) {
			roots.AddCert(root)
		}
		for _, other := range chain[1:] {
			others.AddCert(other)
		}
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			options := x509.VerifyOptions{Roots: roots, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{usage}}
			if _, err := chain[0].Verify(options); err != nil {
				failed = true
				fmt.Println(os.Args[i], err)
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}
"""


def go_verify(directory: Path, chains: Sequence[tuple[str, str]]) -> str:
    """ "" if Go's crypto/x509 takes every chain below its roots, else what it says. Needs `go` on PATH."""
    source = directory / "verify.go"
    source.write_text(GO_VERIFIER)
    files: list[str] = []
    for index, texts in enumerate(chains):
        for what, text in zip(("chain", "roots"), texts, strict=True):
            path = directory / f"{what}-{index}.pem"
            path.write_text(text)
            files.append(str(path))
    done = subprocess.run(
        ["go", "run", str(source), *files], capture_output=True, text=True, check=False, timeout=240, cwd=directory
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
