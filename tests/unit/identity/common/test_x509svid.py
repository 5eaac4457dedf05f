from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.common.keys import KEY_TYPES, KeyType, from_pem, generate_key, key_type_of, to_pem
from nginx_mesh.identity.common.x509svid import (
    Signer,
    SvidError,
    certificate_pem,
    issue_authority,
    issue_svid,
    spiffe_id_of,
)
from tests.unit.identity.chains import PURPOSES, Verifier, openssl_verify

NOW = 1_800_000_000
DAY = 86_400
WEB = workload_id("example.org", "shop", "web")
LEAF_KEY = generate_key("ec-p256")


def authority(key_type: KeyType = "ec-p256", start: int = NOW - 300, end: int = NOW + DAY, serial: int = 7) -> Signer:
    key = generate_key(key_type)
    return Signer(issue_authority(key, "example.org", start, end, serial), key)


CA = authority()


def issue(
    signer: Signer = CA,
    spiffe_id: SpiffeId = WEB,
    dns_names: Sequence[str] = (),
    not_before: float = NOW - 300,
    not_after: float = NOW + 3600,
) -> x509.Certificate:
    return issue_svid(signer, LEAF_KEY.public_key(), spiffe_id, dns_names, not_before, not_after, 99)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_openssl_and_cryptography_accept_chains_of_every_key_type(key_type: KeyType, tmp_path: Path) -> None:
    signer = authority(key_type)
    leaf = issue(signer, dns_names=["web.shop.svc", "web.shop.svc.cluster.local"])
    for purpose in PURPOSES:
        bundle = certificate_pem(signer.certificate)
        assert openssl_verify(tmp_path, certificate_pem(leaf), bundle, purpose, NOW) == ""
    assert Verifier([signer.certificate]).spiffe_id(leaf, NOW) == str(WEB)


def test_openssl_refuses_expired_early_and_foreign_chains(tmp_path: Path) -> None:
    leaf, bundle = certificate_pem(issue()), certificate_pem(CA.certificate)
    assert "has expired" in openssl_verify(tmp_path, leaf, bundle, "sslserver", NOW + 3601)
    assert "not yet valid" in openssl_verify(tmp_path, leaf, bundle, "sslserver", NOW - 301)
    foreign = certificate_pem(authority().certificate)
    assert "error 20" in openssl_verify(tmp_path, leaf, foreign, "sslserver", NOW)  # no issuer found


def test_an_svid_cannot_sign_another(tmp_path: Path) -> None:
    leaf = Signer(issue(), LEAF_KEY)
    forged = issue_svid(leaf, LEAF_KEY.public_key(), WEB, (), NOW - 10, NOW + 10, 100)
    chain = certificate_pem(forged) + certificate_pem(leaf.certificate)
    assert openssl_verify(tmp_path, chain, certificate_pem(CA.certificate), "sslserver", NOW) != ""
    with pytest.raises(VerificationError):
        Verifier([CA.certificate]).spiffe_id(forged, NOW)


def test_a_leaf_is_as_the_x509_svid_standard_says() -> None:
    leaf = issue(dns_names=["web.shop.svc", "web", "web.shop.svc"])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(WEB)]
    assert names.get_values_for_type(x509.DNSName) == ["web.shop.svc", "web"]
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    ski = CA.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    aki = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert aki.key_identifier == ski.digest
    assert leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert leaf.serial_number == 99
    assert leaf.subject != leaf.issuer  # equal names would make it look self-issued
    assert spiffe_id_of(leaf) == WEB


def test_a_signing_certificate_is_as_the_x509_svid_standard_says() -> None:
    certificate = CA.certificate
    assert str(spiffe_id_of(certificate)) == "spiffe://example.org"
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature


def test_two_cas_have_different_names() -> None:
    assert authority(serial=1).certificate.subject != authority(serial=2).certificate.subject


@given(st.floats(-2 * DAY, 2 * DAY), st.floats(-2 * DAY, 2 * DAY))
@settings(max_examples=60, deadline=None)
def test_an_svid_is_valid_as_asked_but_never_outside_its_cas_life(start: float, end: float) -> None:
    first, last = int(max(NOW + start, NOW - 300)), int(min(NOW + end, NOW + DAY))
    if first >= last:
        with pytest.raises(SvidError, match="validity is empty"):
            issue(not_before=NOW + start, not_after=NOW + end)
        return
    leaf = issue(not_before=NOW + start, not_after=NOW + end)
    assert leaf.not_valid_before_utc.timestamp() == first
    assert leaf.not_valid_after_utc.timestamp() == last


def test_an_id_of_another_trust_domain_is_refused() -> None:
    with pytest.raises(SvidError, match=r"spiffe://evil\.org/ns/shop/sa/web is outside the CA's trust domain"):
        issue(spiffe_id=workload_id("evil.org", "shop", "web"))


def test_no_leaf_carries_the_trust_domains_own_id() -> None:
    with pytest.raises(SvidError, match="has no path"):
        issue(spiffe_id=SpiffeId("example.org"))


@pytest.mark.parametrize(
    "name", ["", "*.shop", "Web", "-web", "web-", "a..b", "a.", "web\n", "wéb", "a" * 64, "a." * 127 + "a", "a b"]
)
def test_malformed_dns_names_are_refused(name: str) -> None:
    with pytest.raises(SvidError, match="is not a lower-case DNS name"):
        issue(dns_names=["good.name", name])


def test_a_leaf_key_of_another_type_is_refused() -> None:
    odd = ec.generate_private_key(ec.SECP521R1())
    with pytest.raises(SvidError, match="ec-secp521r1 is not one of"):
        issue_svid(CA, odd.public_key(), WEB, (), NOW, NOW + 60, 1)


def test_a_certificate_with_two_uris_is_no_svid() -> None:
    uris = [x509.UniformResourceIdentifier(f"spiffe://example.org/{n}") for n in "ab"]
    for names, reason in ((uris, "has 2 URI names"), ([x509.DNSName("a")], "has 0 URI names")):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(CA.certificate.subject)
            .issuer_name(CA.certificate.subject)
            .public_key(LEAF_KEY.public_key())
            .serial_number(1)
            .not_valid_before(CA.certificate.not_valid_before_utc)
            .not_valid_after(CA.certificate.not_valid_after_utc)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(CA.key, CA.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
        )
        with pytest.raises(SvidError, match=reason):
            spiffe_id_of(certificate)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_keys_survive_pem_and_are_pkcs8(key_type: KeyType) -> None:
    key = generate_key(key_type)
    assert key_type_of(key) == key_type_of(key.public_key()) == key_type
    pem = to_pem(key)
    assert pem.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert from_pem(pem).public_key() == key.public_key()


def test_unknown_key_types_are_refused() -> None:
    with pytest.raises(ValueError, match="'ec-p521' is not one of ec-p256, ec-p384, rsa-2048, rsa-4096"):
        generate_key("ec-p521")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not one of"):
        key_type_of("a key")
    with pytest.raises(ValueError, match="not a private key in unencrypted PEM"):
        from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
