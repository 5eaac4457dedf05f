"""The interface of upstream authorities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cryptography import x509


class UpstreamError(Exception):
    """The upstream authority failed, or gave an unfit answer. The message says what and where, and holds no secret."""


@dataclass(frozen=True)
class MintedCa:
    """A CA certificate that an upstream authority signed.

    `chain` begins with the CA's own certificate. The intermediates up to the root follow, without the root itself.
    `roots`, at least one, are to be trusted because of this CA.
    """

    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]

    @property
    def limit(self) -> float:
        """The last Unix second at which the whole chain is valid. Upstream's own CA may expire before ours does."""
        last = self.chain[-1]
        above = max(root.not_valid_after_utc for root in self.roots if root.subject == last.issuer)
        return min(above, *(each.not_valid_after_utc for each in self.chain)).timestamp()


class UpstreamAuthority(Protocol):
    """Signs our CAs. `str()` says which and where, for messages. Methods raise UpstreamError within seconds."""

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        """Sign a CA for the CSR's key, subject and URI SAN.

        Times are Unix seconds. Upstream may give another validity than is asked for.
        """

    async def roots(self) -> tuple[x509.Certificate, ...] | None:
        """The roots that upstream has now, None where it only tells them when it signs. This is called regularly."""

    async def close(self) -> None:
        """Let go of connections."""
