"""Private keys of the four types that caKeyType takes."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

KeyType = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-4096"]
KEY_TYPES: tuple[KeyType, ...] = get_args(KeyType)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def generate_key(key_type: KeyType) -> PrivateKey:
    """A new private key. rsa-4096 takes about a second, with the GIL released; the EC types take microseconds."""
    match key_type:
        case "ec-p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ec-p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa-2048":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "rsa-4096":
            return rsa.generate_private_key(public_exponent=65537, key_size=4096)
        case _:
            raise ValueError(f"key type {key_type!r} is not one of {', '.join(KEY_TYPES)}")


def key_type_of(key: object) -> KeyType:
    """The type of a private or public key. Raises ValueError for a key of any other type."""
    match key:
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            name = f"ec-{key.curve.name}"
            found: dict[str, KeyType] = {"ec-secp256r1": "ec-p256", "ec-secp384r1": "ec-p384"}
        case rsa.RSAPrivateKey() | rsa.RSAPublicKey():
            name = f"rsa-{key.key_size}"
            found = {"rsa-2048": "rsa-2048", "rsa-4096": "rsa-4096"}
        case _:
            name, found = type(key).__name__, {}
    if name not in found:
        raise ValueError(f"key of type {name} is not one of {', '.join(KEY_TYPES)}")
    return found[name]


def key_id_of(key: PrivateKey | PublicKey) -> str:
    """A name for a key: the first 32 hexadecimal digits of the SHA-256 of its public half (SubjectPublicKeyInfo)."""
    public = key if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) else key.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:32]


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """The digest to sign with, which is as strong as the key."""
    return hashes.SHA384() if key_type_of(key) == "ec-p384" else hashes.SHA256()


def to_pem(key: PrivateKey) -> str:
    """The key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def from_pem(pem: str) -> PrivateKey:
    """The key in unencrypted PEM. Raises ValueError."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's message quotes parts of the text.
        raise ValueError("not a private key in unencrypted PEM") from None
    key_type_of(key)
    assert isinstance(key, PrivateKey)  # noqa: S101 - what key_type_of just established
    return key
