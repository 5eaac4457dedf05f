import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.bundle import JwtAuthority, TrustBundle
from nginx_mesh.identity.common.jwtsvid import CLOCK_SKEW, MAX_TOKEN_BYTES, JwtError, sign, validate
from nginx_mesh.identity.common.keys import KEY_TYPES, KeyType, generate_key

NOW = 1_800_000_000
TTL = 300
WEB = SpiffeId("example.org", "/ns/shop/sa/web")
KEYS = {f"key-{key_type}": generate_key(key_type) for key_type in KEY_TYPES}
KEY = KEYS["key-ec-p256"]
OTHER = generate_key("ec-p256")
BUNDLES = {
    "example.org": TrustBundle("example.org", (), tuple(JwtAuthority(i, k.public_key()) for i, k in KEYS.items())),
    "partner.test": TrustBundle("partner.test", (), (JwtAuthority("key-ec-p256", OTHER.public_key()),)),
}


def token(**overrides: Any) -> str:
    arguments: dict[str, Any] = {"key": KEY, "key_id": "key-ec-p256", "spiffe_id": WEB, "audience": ["db"]}
    return sign(**(arguments | {"now": NOW, "ttl": TTL} | overrides))


def forged(
    claims: dict[str, object] | None = None,
    header: dict[str, object] | None = None,
    key: Any = KEY,
    algorithm: str = "ES256",
) -> str:
    """A properly signed token with what our `sign` would not write; None removes."""
    payload = {"sub": str(WEB), "aud": ["db"], "exp": NOW + TTL, "iat": NOW} | (claims or {})
    headers = {"kid": "key-ec-p256"} | (header or {})
    payload = {name: value for name, value in payload.items() if value is not None}
    return raw({"alg": algorithm, "typ": "JWT"} | headers, json.dumps(payload).encode(), key)


def raw(header: dict[str, object], payload: bytes, key: Any = KEY) -> str:
    return jwt.PyJWS().encode(payload, key, str(header["alg"]), {k: v for k, v in header.items() if k != "alg"})


@pytest.mark.parametrize("key_type", KEY_TYPES)
@pytest.mark.parametrize("audience", [["db"], ["db", "spiffe://example.org/db", "db"]])
def test_tokens_of_every_key_type_validate_here_and_by_pyjwt(key_type: KeyType, audience: list[str]) -> None:
    key = KEYS[f"key-{key_type}"]
    made = token(key=key, key_id=f"key-{key_type}", audience=audience)
    claims = validate(made, "db", BUNDLES, NOW)
    assert claims == {"sub": str(WEB), "aud": list(dict.fromkeys(audience)), "iat": NOW, "exp": NOW + TTL}
    algorithm = {"ec-p256": "ES256", "ec-p384": "ES384"}.get(key_type, "RS256")
    assert jwt.get_unverified_header(made) == {"alg": algorithm, "kid": f"key-{key_type}", "typ": "JWT"}
    options: Any = {"verify_exp": False, "verify_iat": False}
    assert claims == jwt.decode(made, key.public_key(), [algorithm], options, audience="db")


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS384", "PS512", "ES512"])
def test_every_algorithm_of_the_standard_is_taken_for_its_key(algorithm: str) -> None:
    key = ec.generate_private_key(ec.SECP521R1()) if algorithm == "ES512" else KEYS["key-rsa-2048"]
    bundles = {"example.org": TrustBundle("example.org", (), (JwtAuthority("k", key.public_key()),))}
    made = forged(header={"kid": "k"}, key=key, algorithm=algorithm)
    assert validate(made, "db", bundles, NOW)["sub"] == str(WEB)
    with pytest.raises(JwtError, match=r"header alg: \w+ is not for the key"):
        validate(made, "db", BUNDLES | {"example.org": key_named_k(KEY)}, NOW)


def key_named_k(key: Any) -> TrustBundle:
    return TrustBundle("example.org", (), (JwtAuthority("k", key.public_key()),))


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.floats(0, 4e9),
    st.integers(1, 10**6),
    st.floats(-(10**6), 10**6),
)
def test_token_is_valid_exactly_until_it_expires(audience: str, now: float, ttl: int, later: float) -> None:
    made = token(audience=[audience], now=now, ttl=ttl)
    expiry, early = int(now) + ttl, int(now) - CLOCK_SKEW
    if early <= now + later < expiry:
        assert validate(made, audience, BUNDLES, now + later)["exp"] == expiry
    else:
        with pytest.raises(JwtError, match=r"expired|in the future"):
            validate(made, audience, BUNDLES, now + later)


MADE = token()


@given(st.integers(0, len(MADE) - 1), st.characters(codec="utf-8"))
def test_no_character_of_a_token_can_be_changed(at: int, character: str) -> None:
    changed = MADE[:at] + character + MADE[at + 1 :]
    if changed != MADE:
        with pytest.raises(JwtError):
            validate(changed, "db", BUNDLES, NOW)


@given(
    st.text(max_size=300)
    | st.lists(st.binary(max_size=80), min_size=3, max_size=3).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    )
)
def test_junk_is_refused(text: str) -> None:
    with pytest.raises(JwtError):
        validate(text, "db", BUNDLES, NOW)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (forged({"sub": None}), "claim sub: missing"),
        (forged({"sub": 5}), "claim sub: missing"),
        (forged({"sub": "web"}), "claim sub: SPIFFE ID 'web' does not start with"),
        (forged({"sub": "spiffe://example.org/a/../b"}), "claim sub: path has the relative segment"),
        (forged({"sub": "spiffe://elsewhere.test/web"}), "no bundle for the trust domain elsewhere.test"),
        (forged({"sub": "spiffe://partner.test/web"}), "signature is wrong"),
        (forged({"aud": None}), "claim aud: missing"),
        (forged({"aud": []}), "claim aud: missing, empty"),
        (forged({"aud": ["db", 1]}), "claim aud: missing, empty or not strings"),
        (forged({"aud": {"db": 1}}), "claim aud: missing, empty or not strings"),
        (forged({"aud": "dbs"}), "claim aud: the token is not for 'db'"),
        (forged({"aud": ["DB"]}), "claim aud: the token is not for 'db'"),
        (forged({"exp": None}), "claim exp: missing"),
        (forged({"exp": "2100-01-01"}), "claim exp: missing or not a number"),
        (forged({"exp": True}), "claim exp: missing or not a number"),
        (forged({"exp": NOW}), "token expired 0 s ago"),
        (forged({"exp": NOW - 90}), "token expired 90 s ago"),
        (forged({"nbf": NOW + 100}), "claim nbf: 100 s in the future"),
        (forged({"iat": NOW + 100}), "claim iat: 100 s in the future"),
        (forged({"iat": "now"}), "claim iat: missing or not a number"),
        (forged(header={"kid": "another"}), "no key 'another' in the bundle of example.org"),
        (forged(header={"kid": "key-ec-p384"}), "header alg: ES256 is not for the key 'key-ec-p384'"),
        (forged(header={"crit": ["exp"]}), "header 'crit' is not allowed"),
        (forged(header={"jwk": {"kty": "EC"}}), "header 'jwk' is not allowed"),
        (forged(header={"jku": "https://attacker.test"}), "header 'jku' is not allowed"),
        (forged(header={"typ": "at+jwt"}), "header typ: neither JWT nor JOSE"),
        (forged(key=None, algorithm="none"), "header alg: not one of"),
        (forged(key=OTHER), "signature is wrong"),
        (token(key=OTHER), "signature is wrong"),
        (MADE.rpartition(".")[0] + ".", "signature is wrong"),
        (MADE + "=", "signature: not base64url"),
        (MADE + ".e30", "token has 4 parts"),
        (MADE + "A" * MAX_TOKEN_BYTES, f"token has more than {MAX_TOKEN_BYTES} bytes"),
        (raw({"alg": "ES256", "typ": "JWT"}, b"{}"), "header kid: missing"),
        (raw({"alg": "ES256", "kid": "k"}, b'{"sub":"a","sub":"b"}'), "claims: member 'sub' occurs twice"),
        (raw({"alg": "ES256", "kid": "k"}, b"[" * 9_000), "claims: nested too deeply"),
        (raw({"alg": "ES256", "kid": "k"}, b'{"exp":Infinity}'), "claims: Infinity is not JSON"),
    ],
)
def test_token_that_is_no_valid_svid_is_refused_with_the_reason(bad: str, reason: str) -> None:
    with pytest.raises(JwtError) as error:
        validate(bad, "db", BUNDLES, NOW)
    assert str(error.value).startswith(reason)


def test_number_that_overflows_is_no_expiry() -> None:
    payload = json.dumps({"sub": str(WEB), "aud": "db"}).encode()[:-1] + b',"exp":1e999}'
    with pytest.raises(JwtError, match="claims: a number is too large"):
        validate(raw({"alg": "ES256", "kid": "key-ec-p256"}, payload), "db", BUNDLES, NOW)


def test_public_key_is_no_hmac_secret() -> None:
    """The classic confusion: HS256 with the public key, which everybody knows, as the secret."""
    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    parts = MADE.split(".")
    parts[0] = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"key-ec-p256"}').rstrip(b"=").decode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        ".".join(parts[:2]).encode(), pem
    )
    parts[2] = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    with pytest.raises(JwtError, match="header alg: not one of"):
        validate(".".join(parts), "db", BUNDLES, NOW)


def test_key_that_has_expired_vouches_for_nothing() -> None:
    bundles = {"example.org": TrustBundle("example.org", (), (JwtAuthority("key-ec-p256", KEY.public_key(), NOW),))}
    assert validate(MADE, "db", bundles, NOW - 1)
    with pytest.raises(JwtError, match=r"key 'key-ec-p256' of example\.org has expired"):
        validate(MADE, "db", bundles, NOW)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"audience": []}, "audience is empty"),
        ({"audience": ["db", ""]}, "audience is empty"),
        ({"audience": [str(i) for i in range(33)]}, "audience has 33 values"),
        ({"audience": ["a" * MAX_TOKEN_BYTES]}, "token has"),
        ({"ttl": 0}, "time to live of 0 s"),
        ({"key_id": ""}, "key ID is empty"),
    ],
)
def test_nothing_is_signed_that_would_not_validate(overrides: dict[str, Any], reason: str) -> None:
    with pytest.raises(JwtError, match=reason):
        token(**overrides)
