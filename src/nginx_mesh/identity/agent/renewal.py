"""When the SVID of a workload is replaced. Pure: times are arguments, in Unix seconds."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cryptography import x509

from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.client import Announcement
from nginx_mesh.identity.common.keys import to_pem
from nginx_mesh.identity.common.workload import X509Svid
from nginx_mesh.identity.common.x509svid import authority_key_id, certificates_pem, subject_key_id

# SVIDs are renewed between 2/5 and 1/2 of their life, so that those issued together are not renewed together.
_RENEW_JITTER = 0.1
# The SVIDs of a retired CA are replaced within so many seconds.
_RETIRE_SPREAD = 10.0
# The clock may be set back by so many seconds before SVIDs count as living longer than their TTL.
_CLOCK_TOLERANCE = 2.0
# The server's clock may be ahead of ours by so many seconds before that.
_CLOCK_AHEAD = 300.0

RootKeyIds = Mapping[x509.Name, frozenset[str]]
"""The roots of a bundle: by subject, the subject key identifiers of the roots that have it."""


@dataclass(frozen=True)
class IssuedSvid:
    """An SVID, in PEM too, with what decides when it is replaced.

    `issuer` is the key identifier of the CA that signed it, `root` the name and the key identifier of the root that its
    chain leads to. `ahead` is the number of seconds by which the server's clock seemed to be ahead when it was issued.
    """

    svid: X509Svid
    chain_pem: str
    key_pem: str = field(repr=False)
    issuer: str
    root: tuple[x509.Name, str]
    not_before: float
    not_after: float
    renew_at: float
    ahead: float


def issued_svid(svid: X509Svid, announcement: Announcement, now: float, rng: random.Random) -> IssuedSvid:
    """An SVID that was issued at `now`, with the time of its renewal."""
    chain = svid.chain
    not_after = min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
    issued = IssuedSvid(
        svid,
        certificates_pem(chain),
        to_pem(svid.key),
        authority_key_id(chain[0]),
        (chain[-1].issuer, authority_key_id(chain[-1])),
        chain[0].not_valid_before_utc.timestamp(),
        not_after,
        now + (not_after - now) * (0.5 - rng.uniform(0, _RENEW_JITTER)),
        min(max(0.0, not_after - now - announcement.svid_ttl), _CLOCK_AHEAD),
    )
    return replaced_early(issued, now, rng) if issued.issuer in announcement.retired else issued


def replaced_early(issued: IssuedSvid, now: float, rng: random.Random) -> IssuedSvid:
    """The same SVID, to be replaced within seconds, because its CA is retired."""
    soon = now + rng.uniform(0, min(_RETIRE_SPREAD, max(0.0, issued.not_after - now) / 4))
    return replace(issued, renew_at=min(issued.renew_at, soon))


def replaced_at_once(issued: IssuedSvid) -> IssuedSvid:
    """The same SVID, to be replaced as soon as possible. It serves until then."""
    return replace(issued, renew_at=0.0)


def is_due(issued: IssuedSvid, roots: RootKeyIds, svid_ttl: int, now: float) -> bool:
    """Whether an SVID is to be replaced at `now`. `svid_ttl` is the life, in seconds, that SVIDs have at present."""
    if not issued.not_before <= now < issued.not_after or not _has_root(issued, roots):
        return True
    if issued.not_after > now + svid_ttl + issued.ahead + _CLOCK_TOLERANCE:
        return True  # a shorter TTL was set, or the clock was set back
    return now >= issued.renew_at


def root_key_ids(bundle: TrustBundle) -> RootKeyIds:
    """The roots of a bundle, for `is_due`."""
    found: dict[x509.Name, frozenset[str]] = {}
    for root in bundle.x509_authorities:
        found[root.subject] = found.get(root.subject, frozenset()) | {subject_key_id(root)}
    return found


def _has_root(issued: IssuedSvid, roots: RootKeyIds) -> bool:
    name, key_id = issued.root
    return name in roots and (not key_id or key_id in roots[name])
