"""Trust bundles, by which the certificates and tokens of one trust domain are verified.

A bundle document is a JWK set whose keys are told apart by `use`, as the SPIFFE Trust Domain and Bundle standard says.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from nginx_mesh.api.spiffe import SpiffeId

from .keys import PublicKey
from .strictjson import JsonError, parse_object

MAX_DOCUMENT_BYTES = 1 << 20
MAX_KEYS = 256
MAX_KEY_ID_BYTES = 256

_MAX_INTEGER = 2**63 - 1
_RSA_BITS = range(2048, 8192 + 1)
_CURVES = ("P-256", "P-384", "P-521")
_X509_USE = "x509-svid"
_JWT_USE = "jwt-svid"
# Only documents that we store or send to our agents have this. Other readers ignore members that they do not know.
_EXPIRY = "nginx_mesh_expires_at"
# The errors of a certificate whose encoding is sound.
_X509_ERRORS = (x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,2048}")


class BundleError(ValueError):
    """A document that is no bundle by the standard. The message names the key, the field and the reason."""


@dataclass(frozen=True)
class JwtAuthority:
    """A public key that verifies JWT-SVIDs. `expires_at` is Unix seconds, 0 where the bundle does not say."""

    key_id: str
    public_key: PublicKey
    expires_at: int = 0


@dataclass(frozen=True)
class TrustBundle:
    """The authorities of a trust domain. `refresh_hint` is seconds, 0 for none; `sequence` grows with each change."""

    trust_domain: str
    x509_authorities: tuple[x509.Certificate, ...] = ()
    jwt_authorities: tuple[JwtAuthority, ...] = ()
    sequence: int = 0
    refresh_hint: int = 0


def encode(bundle: TrustBundle, *, expiries: bool = False) -> bytes:
    """The bundle as a SPIFFE bundle document, the same bytes for equal bundles.

    With `expiries` it has the expiry of JWT authorities, too, which the standard has no place for. That is for
    documents that we store or send to our own agents.
    """
    document: dict[str, object] = {"spiffe_sequence": bundle.sequence}
    if bundle.refresh_hint:
        document["spiffe_refresh_hint"] = bundle.refresh_hint
    keys = [_x509_jwk(certificate) for certificate in bundle.x509_authorities]
    for authority in bundle.jwt_authorities:
        jwk = {"use": _JWT_USE, **_jwt_jwk(authority)}
        if expiries and authority.expires_at:
            jwk[_EXPIRY] = authority.expires_at
        keys.append(jwk)
    return _dump({**document, "keys": keys})


def jwks_of(bundle: TrustBundle) -> bytes:
    """The JWT authorities alone, as a plain JWK set (RFC 7517): without `use`, whose values libraries may not know."""
    return _dump({"keys": [_jwt_jwk(authority) for authority in bundle.jwt_authorities]})


def decode(trust_domain: str, document: bytes) -> TrustBundle:
    """The bundle of `trust_domain` in a document of at most 1 MiB and 256 keys. Raises BundleError.

    Keys of unknown type or use are ignored, as the standard demands. One malformed key of a known type and use makes
    the whole document an error, because its publisher did not mean half a bundle.
    """
    try:
        SpiffeId(trust_domain)
    except ValueError as error:
        raise BundleError(str(error)) from None
    if len(document) > MAX_DOCUMENT_BYTES:
        raise BundleError(f"bundle has {len(document)} bytes; the limit is {MAX_DOCUMENT_BYTES}")
    try:
        members = parse_object(document)
    except JsonError as error:
        raise BundleError(f"bundle: {error}") from None
    keys = members.get("keys")
    if not isinstance(keys, list):
        raise BundleError("keys: not an array" if "keys" in members else "keys: missing")
    if len(keys) > MAX_KEYS:
        raise BundleError(f"keys: {len(keys)} of them; the limit is {MAX_KEYS}")

    certificates: dict[x509.Certificate, None] = {}
    authorities: dict[str, JwtAuthority] = {}
    for index, jwk in enumerate(keys):
        where = f"keys[{index}]"
        if not isinstance(jwk, dict):
            raise BundleError(f"{where}: not an object")
        if not _known(jwk):
            continue
        match jwk.get("use"):
            case "x509-svid":
                if jwk.get("x5c"):
                    certificates[_certificate(jwk, where)] = None
            case "jwt-svid":
                authority = _jwt_authority(jwk, where)
                if authorities.setdefault(authority.key_id, authority) is not authority:
                    raise BundleError(f"{where}.kid: {authority.key_id!r} names an earlier key")
    return TrustBundle(
        trust_domain,
        tuple(certificates),
        tuple(authorities.values()),
        _integer(members, "spiffe_sequence", "spiffe_sequence"),
        _integer(members, "spiffe_refresh_hint", "spiffe_refresh_hint"),
    )


def merged(one: TrustBundle, other: TrustBundle, now: float) -> TrustBundle:
    """The authorities of both bundles that have not expired at `now` (Unix seconds).

    Sequence number and refresh hint are those of `one`. The authorities are sorted by age and by nothing else, so that
    two servers which merge the same authorities get equal bundles.
    """
    certificates = {
        each.fingerprint(hashes.SHA256()): each for each in (*one.x509_authorities, *other.x509_authorities)
    }
    keys = {each.key_id: each for each in (*one.jwt_authorities, *other.jwt_authorities)}
    return replace(
        one,
        x509_authorities=tuple(
            sorted(
                (each for each in certificates.values() if now <= each.not_valid_after_utc.timestamp()),
                key=lambda each: (each.not_valid_before_utc, each.serial_number),
            )
        ),
        jwt_authorities=tuple(
            sorted(
                (each for each in keys.values() if not each.expires_at or now <= each.expires_at),
                key=lambda each: (each.expires_at, each.key_id),
            )
        ),
    )


def same_authorities(one: TrustBundle, other: TrustBundle) -> bool:
    """Whether two bundles have the same authorities, whatever their sequence numbers."""
    return (one.x509_authorities, one.jwt_authorities) == (other.x509_authorities, other.jwt_authorities)


def _dump(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _x509_jwk(certificate: x509.Certificate) -> dict[str, object]:
    der = certificate.public_bytes(serialization.Encoding.DER)
    return {"use": _X509_USE, **_jwk_of(certificate.public_key()), "x5c": [base64.b64encode(der).decode()]}


def _jwt_jwk(authority: JwtAuthority) -> dict[str, object]:
    return {"kid": authority.key_id, **_jwk_of(authority.public_key)}


def _jwk_of(key: object) -> dict[str, object]:
    match key:
        case ec.EllipticCurvePublicKey():
            jwk = ECAlgorithm.to_jwk(key, as_dict=True)
        case rsa.RSAPublicKey():
            jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
        case _:
            raise BundleError(f"public key of type {type(key).__name__} is neither EC nor RSA")
    return {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}


def _known(jwk: dict[str, Any]) -> bool:
    """Whether the key is of a type that we know. The curve is part of the type."""
    kty, crv = jwk.get("kty"), jwk.get("crv")
    return kty == "RSA" or (kty == "EC" and (not isinstance(crv, str) or crv in _CURVES))


def _certificate(jwk: dict[str, Any], where: str) -> x509.Certificate:
    chain = jwk["x5c"]
    where_chain = f"{where}.x5c"
    if not isinstance(chain, list) or not isinstance(chain[0], str):
        raise BundleError(f"{where_chain}: not an array of strings")
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        public_key = certificate.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except binascii.Error:
        raise BundleError(f"{where_chain}: not base64") from None
    except x509.ExtensionNotFound:
        raise BundleError(f"{where_chain}: not the certificate of a CA") from None
    except (ValueError, UnsupportedAlgorithm, *_X509_ERRORS):
        raise BundleError(f"{where_chain}: not a DER certificate with a key that we know") from None
    if not constraints.ca:
        raise BundleError(f"{where_chain}: not the certificate of a CA")
    # RFC 7517, 4.7: the other members have to be the certificate's key. Otherwise readers disagree on what is trusted.
    if _public_key(jwk, where) != public_key:
        raise BundleError(f"{where_chain}: the certificate's key is not the one that the other members spell")
    return certificate


def _jwt_authority(jwk: dict[str, Any], where: str) -> JwtAuthority:
    key_id = jwk.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise BundleError(f"{where}.kid: missing, empty or not a string")
    if len(key_id.encode()) > MAX_KEY_ID_BYTES:
        raise BundleError(f"{where}.kid: longer than {MAX_KEY_ID_BYTES} bytes")
    return JwtAuthority(key_id, _public_key(jwk, where), _integer(jwk, _EXPIRY, f"{where}.{_EXPIRY}"))


def _public_key(jwk: dict[str, Any], where: str) -> PublicKey:
    """The public key in the members. Private members are not looked at."""
    if jwk["kty"] == "EC":
        if jwk.get("crv") not in _CURVES:
            raise BundleError(f"{where}.crv: not one of {', '.join(_CURVES)}")
        _check_encoded(jwk, ("x", "y"), where)
        try:
            return _public(ECAlgorithm.from_jwk({name: jwk[name] for name in ("kty", "crv", "x", "y")}))
        except (InvalidKeyError, ValueError):
            raise BundleError(f"{where}: x and y are not a point on {jwk['crv']}") from None
    _check_encoded(jwk, ("n", "e"), where)
    try:
        key = _public(RSAAlgorithm.from_jwk({name: jwk[name] for name in ("kty", "n", "e")}))
    except (InvalidKeyError, ValueError):
        raise BundleError(f"{where}: n and e are not an RSA key of 2048 bits or more") from None
    if key.key_size not in _RSA_BITS:
        raise BundleError(f"{where}.n: {key.key_size} bits; from {_RSA_BITS[0]} to {_RSA_BITS[-1]} are taken")
    return key


def _public(key: object) -> PublicKey:
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)  # noqa: S101 - no private member was passed
    return key


def _check_encoded(jwk: dict[str, Any], names: Iterable[str], where: str) -> None:
    for name in names:
        value = jwk.get(name)
        if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
            raise BundleError(f"{where}.{name}: missing, or not base64url of at most 2048 characters")


def _integer(members: dict[str, Any], name: str, where: str) -> int:
    """The integer in a member, 0 when it is absent."""
    value = members.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_INTEGER:
        raise BundleError(f"{where}: not an integer from 0 to 2^63-1")
    return value
