"""Trust domains for tests: CAs, SVIDs and bundles, valid now unless asked otherwise."""

import secrets
import time
from collections.abc import Sequence

from cryptography import x509

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.bundle import JwtAuthority, TrustBundle
from nginx_mesh.identity.common.keys import generate_key
from nginx_mesh.identity.common.workload import X509Svid
from nginx_mesh.identity.common.x509svid import Signer, issue_authority, issue_svid


class Domain:
    """A trust domain with one CA that signs, and all that ever did trusted."""

    def __init__(self, name: str = "example.org") -> None:
        self.name = name
        self.jwt_key = generate_key("ec-p256")
        self.jwt_key_id = secrets.token_hex(4)
        self.authorities: list[x509.Certificate] = []
        self.sequence = 0
        self.rotate()

    def prepare(self) -> Signer:
        """A new CA, trusted from now on."""
        key, now = generate_key("ec-p256"), time.time()
        certificate = issue_authority(key, self.name, now - 300, now + 86_400, secrets.randbits(100))
        self.authorities.append(certificate)
        self.sequence += 1
        return Signer(certificate, key)

    def rotate(self) -> None:
        """A new CA signs at once, before anybody can have heard of it."""
        self.signer = self.prepare()

    def svid(self, path: str, *, since: float = -300, until: float = 3600, dns_names: Sequence[str] = ()) -> X509Svid:
        """A new SVID, valid from `since` to `until` seconds from now."""
        key, now, spiffe_id = generate_key("ec-p256"), time.time(), SpiffeId(self.name, path)
        serial = secrets.randbits(100)
        leaf = issue_svid(self.signer, key.public_key(), spiffe_id, dns_names, now + since, now + until, serial)
        return X509Svid(spiffe_id, (leaf,), key)

    def bundle(self) -> TrustBundle:
        """What this domain publishes now."""
        jwt = JwtAuthority(self.jwt_key_id, self.jwt_key.public_key())
        return TrustBundle(self.name, tuple(self.authorities), (jwt,), self.sequence, 60)
