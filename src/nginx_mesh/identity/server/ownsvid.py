"""The SVID that an identity server presents itself."""

from __future__ import annotations

import logging

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.client import UnavailableError
from nginx_mesh.identity.common.keys import generate_key
from nginx_mesh.identity.common.workload import X509Svid
from nginx_mesh.identity.common.x509svid import SvidError, authority_key_id

from .authority import Authority

log = logging.getLogger(__name__)


class OwnSvid:
    """An SvidSource whose SVIDs an authority in the same process issues. They are renewed at half of their life."""

    def __init__(self, authority: Authority, spiffe_id: SpiffeId) -> None:
        self._authority = authority
        self._spiffe_id = spiffe_id
        self._svid: X509Svid | None = None
        self._from = self._renew_at = 0.0

    def __call__(self) -> X509Svid | None:
        """The SVID to present now, None while there is none."""
        now = self._authority.clock()
        svid = self._svid
        retired = {each.ca_id for each in self._authority.retired}
        if svid is not None and self._from <= now < self._renew_at and authority_key_id(svid.chain[0]) not in retired:
            return svid
        key = generate_key("ec-p256")
        try:
            chain = self._authority.issue(key.public_key(), self._spiffe_id, (), self._authority.settings.svid_ttl)
        except (UnavailableError, SvidError) as error:
            log.warning("the SVID of %s is not renewed: %s", self._spiffe_id, error)
            return svid
        self._svid = X509Svid(self._spiffe_id, chain, key)
        not_after = min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
        self._from = chain[0].not_valid_before_utc.timestamp()
        self._renew_at = now + (not_after - now) / 2
        return self._svid
