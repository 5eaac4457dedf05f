"""JWT-SVIDs: bearer tokens that say who their holder is, as the SPIFFE JWT-SVID standard defines them.

Pure: keys and times (Unix seconds) are arguments.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import get_default_algorithms

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError

from .bundle import JwtAuthority, TrustBundle
from .keys import PrivateKey, PublicKey, key_type_of
from .strictjson import JsonError, parse_object

MAX_TOKEN_BYTES = 16 << 10
MAX_AUDIENCE = 32
CLOCK_SKEW = 60
"""Seconds by which the issuer's clock may be ahead of ours. An expired token gets no such tolerance."""

_SIGNING = {"ec-p256": "ES256", "ec-p384": "ES384", "rsa-2048": "RS256", "rsa-4096": "RS256"}
_EC_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_VERIFIERS = {
    name: verifier
    for name, verifier in get_default_algorithms().items()
    if name in {*_EC_ALGORITHMS.values(), *_RSA_ALGORITHMS}
}
# The standard allows these alone: no `crit`, and nothing that brings a key along.
_HEADERS = frozenset(["alg", "kid", "typ"])


class JwtError(ValueError):
    """A token that cannot be issued, or is not a valid JWT-SVID. The message says why, without the token."""


def sign(key: PrivateKey, key_id: str, spiffe_id: SpiffeId, audience: Sequence[str], now: float, ttl: int) -> str:
    """A JWT-SVID in compact serialisation that expires at int(now) + `ttl` seconds. Raises JwtError."""
    if not audience or not all(audience):
        raise JwtError("audience is empty")
    if len(audience) > MAX_AUDIENCE:
        raise JwtError(f"audience has {len(audience)} values; the limit is {MAX_AUDIENCE}")
    if ttl <= 0:
        raise JwtError(f"time to live of {ttl} s is not positive")
    if not key_id:
        raise JwtError("key ID is empty")
    issued_at = int(now)
    claims = {"sub": str(spiffe_id), "aud": list(dict.fromkeys(audience)), "exp": issued_at + ttl, "iat": issued_at}
    token = jwt.encode(claims, key, algorithm=_SIGNING[key_type_of(key)], headers={"kid": key_id})
    if len(token) > MAX_TOKEN_BYTES:
        raise JwtError(f"token has {len(token)} bytes; the limit is {MAX_TOKEN_BYTES}")
    return token


def validate(token: str, audience: str, bundles: Mapping[str, TrustBundle], now: float) -> dict[str, Any]:
    """The claims of a JWT-SVID for `audience` that a bundle (by trust domain) vouches for. Raises JwtError.

    `sub` is a valid SPIFFE ID, `exp` a number, `aud` contains `audience`.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise JwtError(f"token has more than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(".")
    if len(parts) != 3:
        raise JwtError(f"token has {len(parts)} parts; a signed one has 3")
    header = _object(parts[0], "header")
    claims = _object(parts[1], "claims")
    signature = _bytes(parts[2], "signature")

    algorithm, key_id = _check_header(header)
    subject = _subject(claims)
    authority = _authority(bundles, subject, key_id, now)
    if algorithm not in _algorithms_of(authority.public_key):
        raise JwtError(f"header alg: {algorithm} is not for the key {key_id!r}")
    signed = f"{parts[0]}.{parts[1]}".encode()
    if not _VERIFIERS[algorithm].verify(signed, authority.public_key, signature):
        raise JwtError("signature is wrong")
    _check_audience(claims, audience)
    _check_times(claims, now)
    return claims


def _bytes(part: str, what: str) -> bytes:
    """The bytes in base64url. Of the several spellings that lenient decoders take, only the canonical one is taken."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise JwtError(f"{what}: not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise JwtError(f"{what}: not base64url")
    return data


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        return parse_object(_bytes(part, what))
    except JsonError as error:
        raise JwtError(f"{what}: {error}") from None


def _check_header(header: dict[str, Any]) -> tuple[str, str]:
    """The algorithm and the key's ID."""
    for name in header:
        if name not in _HEADERS:
            raise JwtError(f"header {name[:64]!r} is not allowed")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in _VERIFIERS:
        raise JwtError(f"header alg: not one of {', '.join(sorted(_VERIFIERS))}")
    if not isinstance(key_id, str) or not key_id:
        raise JwtError("header kid: missing, empty or not a string")
    if header.get("typ", "JWT") not in ("JWT", "JOSE"):
        raise JwtError("header typ: neither JWT nor JOSE")
    return algorithm, key_id


def _subject(claims: dict[str, Any]) -> SpiffeId:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise JwtError("claim sub: missing or not a string")
    try:
        return SpiffeId.parse(subject)
    except SpiffeIdError as error:
        raise JwtError(f"claim sub: {error}") from None


def _authority(bundles: Mapping[str, TrustBundle], subject: SpiffeId, key_id: str, now: float) -> JwtAuthority:
    bundle = bundles.get(subject.trust_domain)
    if bundle is None:
        raise JwtError(f"no bundle for the trust domain {subject.trust_domain}")
    for authority in bundle.jwt_authorities:
        if authority.key_id == key_id:
            if authority.expires_at and authority.expires_at <= now:
                raise JwtError(f"key {key_id[:64]!r} of {subject.trust_domain} has expired")
            return authority
    raise JwtError(f"no key {key_id[:64]!r} in the bundle of {subject.trust_domain}")


def _algorithms_of(key: PublicKey) -> Sequence[str]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return [_EC_ALGORITHMS[key.curve.name]] if key.curve.name in _EC_ALGORITHMS else []
    return _RSA_ALGORITHMS


def _check_audience(claims: dict[str, Any], audience: str) -> None:
    values = claims.get("aud")
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise JwtError("claim aud: missing, empty or not strings")
    if audience not in values:
        raise JwtError(f"claim aud: the token is not for {audience[:256]!r}")


def _check_times(claims: dict[str, Any], now: float) -> None:
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is None and name not in claims and name != "exp":
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise JwtError(f"claim {name}: missing or not a number")
        if name == "exp" and value <= now:
            raise JwtError(f"token expired {now - value:.0f} s ago")
        if name != "exp" and value > now + CLOCK_SKEW:
            raise JwtError(f"claim {name}: {value - now:.0f} s in the future")
