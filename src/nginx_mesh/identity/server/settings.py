"""The settings of an authority."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from nginx_mesh.api.settings import MeshSettings, UpstreamAuthority
from nginx_mesh.identity.common.keys import KeyType

from .ca import CaSettings

MIN_SVID_TTL = 2
"""The shortest life of an SVID, in seconds."""

JWT_TTL = 300
"""The life of a JWT-SVID in seconds, where nobody asks for another."""

AGENT_TTL = 24 * 3600
"""The life of an agent's own SVID, in seconds."""


@dataclass(frozen=True)
class IdentitySettings:
    """The settings mtls.trustDomain, svidTTL, caTTL and caKeyType. TTLs are seconds. Raises ValueError.

    `upstream` tells one configuration of an upstream authority from another; "" means a self-signed CA.
    """

    trust_domain: str
    svid_ttl: int = 3600
    ca_ttl: int = 720 * 3600
    ca_key_type: KeyType = "ec-p256"
    upstream: str = ""

    def __post_init__(self) -> None:
        self.ca_settings()
        if self.svid_ttl < MIN_SVID_TTL:
            raise ValueError(f"SVID TTL of {self.svid_ttl} s is shorter than {MIN_SVID_TTL} s")

    def ca_settings(self) -> CaSettings:
        """The part that is about the CA."""
        return CaSettings(self.trust_domain, self.ca_key_type, self.ca_ttl, self.upstream)


def identity_settings(settings: MeshSettings) -> IdentitySettings:
    """The part of the mesh's settings that is about identity."""
    return IdentitySettings(
        settings.trust_domain,
        settings.svid_ttl,
        settings.ca_ttl,
        settings.ca_key_type,
        upstream=_fingerprint(settings.upstream_authority),
    )


def _fingerprint(upstream: UpstreamAuthority | None) -> str:
    """What tells one configuration of an upstream authority from another, without revealing it."""
    if upstream is None:
        return ""
    digest = hashlib.sha256(msgspec.json.encode(upstream, order="sorted")).hexdigest()
    return f"{upstream.upstream_authority}-{digest[:16]}"
