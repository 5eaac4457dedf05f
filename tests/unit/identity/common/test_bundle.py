import base64
import contextlib
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.bundle import (
    MAX_DOCUMENT_BYTES,
    MAX_KEYS,
    BundleError,
    JwtAuthority,
    TrustBundle,
    decode,
    encode,
    jwks_of,
)
from nginx_mesh.identity.common.keys import KEY_TYPES, PublicKey, generate_key
from nginx_mesh.identity.common.x509svid import Signer, issue_authority, issue_svid

TD = "example.org"
KEYS = [generate_key(key_type) for key_type in KEY_TYPES[:3]] + [ec.generate_private_key(ec.SECP521R1())]
# A JWT key of P-521 is another's, but a root of P-521 may be a company's.
CERTIFICATES = [issue_authority(key, TD, 1_000, 2_000_000_000, 7 + i) for i, key in enumerate(KEYS[:3])]
JWT_KEYS: list[PublicKey] = [key.public_key() for key in KEYS]
LEAF = issue_svid(Signer(CERTIFICATES[0], KEYS[0]), JWT_KEYS[0], SpiffeId(TD, "/a"), (), 1_000, 2_000_000_000, 99)

authorities = st.lists(
    st.builds(
        JwtAuthority,
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
        st.sampled_from(JWT_KEYS),
        st.integers(0, 2**40),
    ),
    unique_by=lambda authority: authority.key_id,
    max_size=4,
)
bundles = st.builds(
    lambda certificates, jwt, sequence, hint: TrustBundle(TD, tuple(certificates), tuple(jwt), sequence, hint),
    st.lists(st.sampled_from(CERTIFICATES), unique=True),
    authorities,
    st.integers(0, 2**63 - 1),
    st.integers(0, 10**9),
)


def without_expiries(bundle: TrustBundle) -> TrustBundle:
    jwt = tuple(JwtAuthority(a.key_id, a.public_key) for a in bundle.jwt_authorities)
    return TrustBundle(bundle.trust_domain, bundle.x509_authorities, jwt, bundle.sequence, bundle.refresh_hint)


@given(bundles)
def test_bundles_survive_encoding(bundle: TrustBundle) -> None:
    assert decode(TD, encode(bundle)) == without_expiries(bundle)
    assert encode(decode(TD, encode(bundle))) == encode(bundle)
    assert decode(TD, encode(bundle, expiries=True)) == bundle


def base64url(number: int, length: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(length, "big")).rstrip(b"=").decode()


def test_document_is_what_the_standard_describes() -> None:
    bundle = TrustBundle(TD, (CERTIFICATES[0],), (JwtAuthority("k1", JWT_KEYS[2], 5),), 3, 600)
    document = json.loads(encode(bundle))
    rsa_key = JWT_KEYS[2]
    ec_key = JWT_KEYS[0]
    assert isinstance(rsa_key, rsa.RSAPublicKey) and isinstance(ec_key, ec.EllipticCurvePublicKey)
    point = ec_key.public_numbers()
    der = CERTIFICATES[0].public_bytes(serialization.Encoding.DER)
    rsa_jwk = {"kty": "RSA", "kid": "k1", "e": "AQAB", "n": base64url(rsa_key.public_numbers().n, 256)}
    assert document == {
        "spiffe_sequence": 3,
        "spiffe_refresh_hint": 600,
        "keys": [
            {
                "kty": "EC",
                "use": "x509-svid",
                "crv": "P-256",
                "x": base64url(point.x, 32),
                "y": base64url(point.y, 32),
                "x5c": [base64.b64encode(der).decode()],
            },
            {**rsa_jwk, "use": "jwt-svid"},
        ],
    }
    assert json.loads(jwks_of(bundle)) == {"keys": [rsa_jwk]}


def document(**changes: object) -> dict[str, Any]:
    """A valid document with members of its second key, a JWT key, changed; None removes."""
    value = json.loads(encode(TrustBundle(TD, (CERTIFICATES[0],), (JwtAuthority("k1", JWT_KEYS[0]),), 1)))
    for name, change in changes.items():
        if change is None:
            del value["keys"][1][name]
        else:
            value["keys"][1][name] = change
    return dict(value)


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "wit-svid"},
        {"use": None},
        {"use": 3},
        {"use": "JWT-SVID"},
        {"kty": "OKP"},
        {"kty": None},
        {"kty": ["EC"]},
        {"crv": "secp256k1"},
        {"use": "x509-svid"},
        {"use": "x509-svid", "x5c": []},
    ],
)
def test_keys_of_unknown_type_or_use_and_x509_keys_without_certificate_are_ignored(changes: dict[str, object]) -> None:
    assert decode(TD, json.dumps(document(**changes)).encode()) == TrustBundle(TD, (CERTIFICATES[0],), (), 1)


def test_unknown_members_and_further_certificates_are_ignored() -> None:
    value = document(alg="ES256", colour="blue") | {"later": {"a": 1}}
    value["keys"][0]["x5c"].append("not even base64")
    value["keys"][0]["kid"] = "of no use"
    assert len(decode(TD, json.dumps(value).encode()).jwt_authorities) == 1


def x5c_of(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kid": None}, "keys[1].kid: missing"),
        ({"kid": ""}, "keys[1].kid: missing"),
        ({"kid": 7}, "keys[1].kid: missing"),
        ({"kid": "k" * 257}, "keys[1].kid: longer"),
        ({"crv": None}, "keys[1].crv: not one of"),
        ({"crv": 256}, "keys[1].crv: not one of"),
        ({"crv": "P-384"}, "keys[1]: x and y are not a point on P-384"),
        ({"x": None}, "keys[1].x: missing"),
        ({"x": "a b"}, "keys[1].x: missing, or not base64url"),
        ({"x": "A" * 4000}, "keys[1].x: missing, or not base64url of at most"),
        ({"y": 5}, "keys[1].y: missing"),
        ({"y": base64url(5, 32)}, "keys[1]: x and y are not a point"),
        ({"kty": "RSA"}, "keys[1].n: missing"),
        ({"kty": "RSA", "n": base64url(2**1023 + 1, 128), "e": "AQAB"}, "keys[1]"),
        ({"kty": "RSA", "n": base64url(2**2047 + 1, 256), "e": "Ag"}, "keys[1]: n and e are not an RSA key"),
        ({"kty": "RSA", "n": base64url(2**10_000 + 1, 1251), "e": "AQAB"}, "keys[1].n: 10001 bits"),
        ({"nginx_mesh_expires_at": "soon"}, "keys[1].nginx_mesh_expires_at: not an integer"),
        ({"use": "x509-svid", "x5c": "text"}, "keys[1].x5c: not an array of strings"),
        ({"use": "x509-svid", "x5c": [5]}, "keys[1].x5c: not an array of strings"),
        ({"use": "x509-svid", "x5c": ["!"]}, "keys[1].x5c: not base64"),
        ({"use": "x509-svid", "x5c": ["AAAA"]}, "keys[1].x5c: not a DER certificate"),
        ({"use": "x509-svid", "x5c": [x5c_of(LEAF)]}, "keys[1].x5c: not the certificate of a CA"),
        (
            {"use": "x509-svid", "x5c": [x5c_of(CERTIFICATES[1])]},
            "keys[1].x5c: the certificate's key is not the one",
        ),
    ],
)
def test_malformed_key_spoils_the_bundle(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(BundleError) as error:
        decode(TD, json.dumps(document(**changes)).encode())
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "bundle: not JSON"),
        (b"\xff", "bundle: not UTF-8"),
        (b"[]", "bundle: not a JSON object"),
        (b'{"keys":[]} x', "bundle: not JSON"),
        (b'{"keys":[],"keys":[]}', "bundle: member 'keys' occurs twice"),
        (b'{"keys":[],"a":{"b":1,"b":2}}', "bundle: member 'b' occurs twice"),
        (b'{"keys":[],"a":NaN}', "bundle: NaN is not JSON"),
        (b'{"keys":[],"a":"\\ud800"}', "bundle: a string is not Unicode"),
        (b'{"keys":[],"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "bundle: nested too deeply"),
        (b'{"keys":[],"a":' + b"1" * 5_000 + b"}", "bundle: a number is too large"),
        (b'{"keys":[],"a":18446744073709551616}', "bundle: a number is too large"),
        (b'{"keys":[],"a":1e999}', "bundle: a number is too large"),
        (b"{}", "keys: missing"),
        (b'{"keys":null}', "keys: not an array"),
        (b'{"keys":{}}', "keys: not an array"),
        (b'{"keys":[1]}', "keys[0]: not an object"),
        (b'{"keys":[' + b",".join([b"{}"] * (MAX_KEYS + 1)) + b"]}", f"keys: {MAX_KEYS + 1} of them"),
        (b'{"keys":[],"spiffe_sequence":-1}', "spiffe_sequence: not an integer"),
        (b'{"keys":[],"spiffe_sequence":true}', "spiffe_sequence: not an integer"),
        (b'{"keys":[],"spiffe_sequence":1.0}', "spiffe_sequence: not an integer"),
        (b'{"keys":[],"spiffe_sequence":9223372036854775808}', "spiffe_sequence: not an integer"),
        (b'{"keys":[],"spiffe_refresh_hint":"1h"}', "spiffe_refresh_hint: not an integer"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "bundle has 1048577 bytes"),
    ],
)
def test_malformed_document_is_refused_with_the_reason(text: bytes, reason: str) -> None:
    with pytest.raises(BundleError) as error:
        decode(TD, text)
    assert str(error.value).startswith(reason)


def test_key_id_that_occurs_twice_is_refused() -> None:
    value = document()
    value["keys"].append(value["keys"][1])
    with pytest.raises(BundleError, match=r"keys\[2\].kid: 'k1' names an earlier key"):
        decode(TD, json.dumps(value).encode())


def test_empty_bundle_revokes_every_key() -> None:
    assert decode(TD, b'{"keys":[],"spiffe_sequence":9}') == TrustBundle(TD, sequence=9)


def test_bundle_of_a_malformed_trust_domain_is_refused() -> None:
    with pytest.raises(BundleError, match="characters other than"):
        decode("Example.org", b'{"keys":[]}')


def test_root_whose_key_the_format_cannot_spell_is_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(BundleError, match="neither EC nor RSA"):
        encode(TrustBundle(TD, (self_signed(key),)))


def self_signed(key: ed25519.Ed25519PrivateKey) -> x509.Certificate:
    model = CERTIFICATES[0]
    return (
        x509.CertificateBuilder()
        .subject_name(model.subject)
        .issuer_name(model.subject)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(model.not_valid_before_utc)
        .not_valid_after(model.not_valid_after_utc)
        .sign(key, None)
    )


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
MEMBERS = ["kty", "use", "kid", "crv", "x", "y", "n", "e", "x5c", "nginx_mesh_expires_at"]


@given(st.sampled_from([0, 1]), st.dictionaries(st.sampled_from(MEMBERS), nested, min_size=1, max_size=3))
def test_no_member_of_a_key_brings_anything_but_a_bundle_or_its_error(index: int, changes: dict[str, object]) -> None:
    value = document()
    value["keys"][index].update(changes)
    try:
        bundle = decode(TD, json.dumps(value).encode())
    except BundleError:
        return
    assert all(authority.key_id in ("k1", changes.get("kid")) for authority in bundle.jwt_authorities)


@given(st.sampled_from([0, 1]), st.integers(0, 1000), st.binary(min_size=1, max_size=4))
def test_no_damage_to_a_certificate_brings_anything_but_a_bundle_or_its_error(index: int, at: int, junk: bytes) -> None:
    certificate = bytearray(CERTIFICATES[index].public_bytes(serialization.Encoding.DER))
    at %= len(certificate)
    certificate[at : at + len(junk)] = junk
    value = document()
    value["keys"][0]["x5c"] = [base64.b64encode(certificate).decode()]
    with contextlib.suppress(BundleError):
        decode(TD, json.dumps(value).encode())


@given(st.binary(max_size=200), st.integers(0, 1500), st.integers(0, 8))
def test_no_damage_brings_anything_but_a_bundle_or_its_error(junk: bytes, at: int, cut: int) -> None:
    whole = json.dumps(document()).encode()
    for text in (whole[:at] + junk + whole[at + cut :], junk):
        with contextlib.suppress(BundleError):
            decode(TD, text)
