"""The interface of upstream authorities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cryptography import x509


class UpstreamError(Exception):
    """The upstream authority failed or answered something unfit. The message says what and where, never a secret."""


@dataclass(frozen=True)
class MintedCa:
    """A CA certificate that an upstream authority signed.

    `chain` begins with the CA's own certificate; intermediates up to the root follow, the root itself does not.
    `roots` are what to trust because of it, at least one.
    """

    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]

    @property
    def limit(self) -> float:
        """The last Unix second at which the whole chain is valid: upstream's own CA may end before ours does."""
        last = self.chain[-1]
        above = max(root.not_valid_after_utc for root in self.roots if root.subject == last.issuer)
        return min(above, *(each.not_valid_after_utc for each in self.chain)).timestamp()


class UpstreamAuthority(Protocol):
    """Signs CAs for us. `str()` says which and where, for messages. Methods raise UpstreamError within seconds."""

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        """Sign a CA for the CSR's key, subject and URI SAN.

        The validity is a wish, in Unix seconds: upstream may cut it.
        """

    async def roots(self) -> tuple[x509.Certificate, ...] | None:
        """The roots as upstream has them now, None where it cannot tell without minting. Called now and then."""

    async def close(self) -> None:
        """Let go of connections."""
