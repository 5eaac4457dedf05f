"""Trust bundles: what one trust domain's certificates and tokens are verified by.

Per the SPIFFE Trust Domain and Bundle standard.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from .keys import PublicKey


@dataclass(frozen=True)
class JwtAuthority:
    """A public key that JWT-SVIDs are verified by. `expires_at` is Unix seconds, 0 where the bundle does not tell."""

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
