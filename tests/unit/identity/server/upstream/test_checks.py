import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from nginx_mesh.identity.common.keys import generate_key
from nginx_mesh.identity.server.upstream import UpstreamError
from nginx_mesh.identity.server.upstream.checks import MAX_PEM_CERTIFICATES, accept, find_path, parse_certificates

from .pki import (
    CA_USAGE,
    DAY,
    NOW,
    Ca,
    answer,
    assert_openssl_accepts,
    bundle_pem,
    key_usage,
    make_ca,
    name,
    request,
    sign,
    uri,
)

ROOT = make_ca("root")
MIDDLE = make_ca("middle", ROOT, path_length=1)
OURS = request()


def accepted(
    certificate: x509.Certificate,
    others: Sequence[Ca] = (MIDDLE,),
    roots: Sequence[Ca] = (ROOT,),
    now: float = NOW,
) -> tuple[x509.Certificate, ...]:
    found = accept(OURS.csr, certificate, [c.certificate for c in others], [c.certificate for c in roots], now)
    return found.chain


def test_a_right_answer_is_taken_with_its_chain_up_to_but_without_the_root(tmp_path: Path) -> None:
    certificate = answer(OURS.csr, MIDDLE)
    stray = make_ca("stray")
    given = [stray.certificate, ROOT.certificate, MIDDLE.certificate]
    minted = accept(OURS.csr, certificate, given, [ROOT.certificate], NOW)
    assert minted.chain == (certificate, MIDDLE.certificate)
    assert minted.roots == (ROOT.certificate,)
    assert_openssl_accepts(tmp_path, minted, OURS.key)


def test_an_answer_right_below_the_root_needs_no_intermediate() -> None:
    certificate = answer(OURS.csr, ROOT)
    assert accepted(certificate, others=()) == (certificate,)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"public_key": generate_key("ec-p256").public_key()}, "for another key"),
        ({"uris": [uri("spiffe://evil.org")]}, "is for spiffe://evil.org, not for spiffe://example.org"),
        ({"uris": [uri("spiffe://example.org/ns/a/sa/b")]}, "is for spiffe://example.org/ns/a/sa/b, not for"),
        ({"uris": [uri("spiffe://example.org"), uri("spiffe://evil.org")]}, "2 URI names"),
        ({"uris": ()}, "no subject alternative name"),
        ({"uris": [x509.DNSName("example.org")]}, "0 URI names"),
        ({"ca": False}, "is no CA"),
        ({"usage": key_usage(digital_signature=True)}, "lacks keyCertSign"),
        ({"usage": None}, "has no key usage"),
        ({"start": NOW - 9 * DAY, "end": NOW - DAY}, "expired at"),
        ({"start": NOW + DAY, "end": NOW + 2 * DAY}, "is not valid before"),
        ({"key": generate_key("ec-p256")}, 'its issuer "CN=middle" did not sign it'),
        (
            {"more": [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)]},
            "may not sign for TLS servers and clients",
        ),
        (
            {"more": [(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]},
            "unknown critical extension 1.2.3.4",
        ),
    ],
)
def test_a_wrong_answer_is_refused_with_the_reason(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(UpstreamError, match=re.escape(reason)):
        accepted(answer(OURS.csr, MIDDLE, **wrong))


def test_a_self_signed_answer_is_refused_even_when_it_would_be_a_root() -> None:
    own = Ca(answer(OURS.csr, Ca(answer(OURS.csr, ROOT), OURS.key)), OURS.key)
    with pytest.raises(UpstreamError, match="signed by the CA's own key, not by upstream"):
        accepted(own.certificate, roots=[own])


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (make_ca("middle", ROOT, path_length=0), '"CN=middle" has path length 0; the CAs below it need at least 1'),
        (make_ca("middle", ROOT, ca=False), '"CN=middle" is no CA'),
        (make_ca("middle", ROOT, usage=key_usage(crl_sign=True)), '"CN=middle" may not sign certificates'),
        (make_ca("middle", ROOT, end=NOW - 1), '"CN=middle" expired'),
        (make_ca("middle", make_ca("root")), 'its issuer "CN=root" did not sign it'),
        (make_ca("middle", make_ca("elsewhere")), '"CN=elsewhere" is missing from the chain and the roots'),
        (make_ca("middle"), 'ends at "CN=middle", which is none of the roots'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_intermediate_is_refused_with_the_reason(middle: Ca, reason: str) -> None:
    with pytest.raises(UpstreamError, match=re.escape(reason)):
        accepted(answer(OURS.csr, middle), others=[middle])


def test_the_roots_path_length_counts_every_ca_below_it() -> None:
    short = make_ca("root", path_length=1)
    middle = make_ca("middle", short)
    with pytest.raises(UpstreamError, match='"CN=root" has path length 1; the CAs below it need at least 2'):
        accepted(answer(OURS.csr, middle), others=[middle], roots=[short])
    assert accepted(answer(OURS.csr, short), others=(), roots=[short])


def test_an_expired_root_vouches_for_nothing() -> None:
    over = make_ca("root", end=NOW - 1)
    with pytest.raises(UpstreamError, match="no root certificate"):
        accepted(answer(OURS.csr, over), others=(), roots=[over])


@pytest.mark.parametrize(
    ("permitted", "excluded", "fits"),
    [
        (["example.org"], None, True),
        ([".org"], None, True),
        (["evil.org", "example.org"], None, True),
        ([".example.org"], None, False),
        (["evil.org"], None, False),
        (None, ["example.org"], False),
        (None, [".org"], False),
        (None, ["evil.org"], True),
    ],
)
def test_name_constraints_must_allow_the_trust_domain(
    permitted: list[str] | None, excluded: list[str] | None, fits: bool, tmp_path: Path
) -> None:
    subtrees = [None if names is None else [uri(n) for n in names] for names in (permitted, excluded)]
    middle = make_ca("middle", ROOT, more=[(x509.NameConstraints(*subtrees), True)])
    certificate = answer(OURS.csr, middle)
    if fits:
        minted = accept(OURS.csr, certificate, [middle.certificate], [ROOT.certificate], NOW)
        assert_openssl_accepts(tmp_path, minted, OURS.key)
    else:
        with pytest.raises(UpstreamError, match=r"permits only|excludes the trust domain example\.org"):
            accepted(certificate, others=[middle])


def test_of_two_ways_up_the_one_that_holds_is_taken() -> None:
    key = generate_key("ec-p256")
    expired = make_ca("middle", ROOT, key=key, end=NOW - 1)
    valid = make_ca("middle", ROOT, key=key)
    certificate = answer(OURS.csr, valid)
    assert accepted(certificate, others=[expired, valid]) == (certificate, valid.certificate)


@pytest.mark.parametrize(("count", "reason"), [(3, "lead to none of the roots"), (8, "too many certificates sign")])
def test_cas_that_sign_each_other_in_circles_lead_nowhere_and_soon(count: int, reason: str) -> None:
    keys = [generate_key("ec-p256") for _ in range(count)]
    plain = [make_ca(f"loop {i}", key=key) for i, key in enumerate(keys)]
    crowd = [make_ca(f"loop {i}", by, key=keys[i]) for i in range(count) for by in plain if by.key is not keys[i]]
    with pytest.raises(UpstreamError, match=reason):
        accepted(answer(OURS.csr, plain[0]), others=crowd)


def test_weak_signatures_and_small_keys_are_refused() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    middle = make_ca("middle", ROOT, key=small)
    with pytest.raises(UpstreamError, match="RSA key of 1024 bits"):
        accepted(answer(OURS.csr, middle), others=[middle])
    strong = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    root = make_ca("root", key=strong)
    extensions = [(x509.BasicConstraints(True, None), True), (CA_USAGE, True)]
    public = MIDDLE.key.public_key()
    try:
        weak = sign(name("middle"), public, root, strong, extensions=extensions, digest=hashes.SHA1())  # noqa: S303
    except Exception:
        return
    with pytest.raises(UpstreamError, match="signed with sha1"):
        accepted(answer(OURS.csr, MIDDLE), others=[Ca(weak, MIDDLE.key)], roots=[root])


def test_a_minted_ca_ends_when_the_first_of_its_chain_does() -> None:
    middle = make_ca("middle", ROOT, end=NOW + 60)
    certificate = answer(OURS.csr, middle, end=NOW + 3600)
    minted = accept(OURS.csr, certificate, [middle.certificate], [ROOT.certificate], NOW)
    assert minted.limit == NOW + 60
    brief = make_ca("root", end=NOW + 30)
    renewed = make_ca("root", key=brief.key, end=NOW + 90)
    roots = [brief.certificate, renewed.certificate]
    assert accept(OURS.csr, answer(OURS.csr, brief), (), roots, NOW).limit == NOW + 90


def test_a_signing_certificate_may_itself_be_the_root() -> None:
    assert find_path(ROOT.certificate, (), [ROOT.certificate], NOW, below=1) == (ROOT.certificate,)


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_pem_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not certificates in PEM"):
        parse_certificates(text)


def test_the_number_of_certificates_in_a_text_is_limited() -> None:
    many = bundle_pem([ROOT.certificate]) * (MAX_PEM_CERTIFICATES + 1)
    with pytest.raises(ValueError, match=f"the limit is {MAX_PEM_CERTIFICATES}"):
        parse_certificates(many)
