"""The bundles that a server hands out.

Servers that share a datastore write the bundle of their trust domain together. The bundles of federated trust domains
are only read here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cryptography import x509

from nginx_mesh.identity.common import bundle as bundles
from nginx_mesh.identity.common.bundle import JwtAuthority, TrustBundle, merged, same_authorities

from .datastore.base import Datastore, DatastoreError

log = logging.getLogger(__name__)

_ATTEMPTS = 20


class BundleKeeper:
    """Keeps bundles in memory and in the datastore. One event loop owns it.

    `saved` says whether all of `own` is in the datastore.
    """

    def __init__(
        self, datastore: Datastore, trust_domain: str, clock: Callable[[], float], refresh_hint: int = 0
    ) -> None:
        self._datastore = datastore
        self._clock = clock
        self.own = TrustBundle(trust_domain, refresh_hint=refresh_hint)
        self.federated: dict[str, TrustBundle] = {}
        self.saved = True

    async def load(self) -> None:
        """Read all bundles. Raises DatastoreError; BundleError when our own is damaged."""
        documents = await asyncio.to_thread(self._datastore.bundles)
        own = documents.pop(self.own.trust_domain, None)
        if own is not None:
            known = bundles.decode(self.own.trust_domain, own)
            self.own = replace(
                merged(known, self.own, self._clock()), refresh_hint=self.own.refresh_hint, sequence=known.sequence
            )
        self.federated = {}
        for trust_domain, document in documents.items():
            self._take_federated(trust_domain, document)

    async def follow(self, trust_domains: Iterable[str]) -> None:
        """Read the bundles again that another server changed. Raises DatastoreError."""
        for trust_domain in trust_domains:
            document = await asyncio.to_thread(self._datastore.bundle, trust_domain)
            if trust_domain != self.own.trust_domain:
                self.federated.pop(trust_domain, None)
                if document is not None:
                    self._take_federated(trust_domain, document)
            elif document is not None:
                self._take_own(document)

    async def add(self, roots: Sequence[x509.Certificate], keys: Sequence[JwtAuthority]) -> None:
        """Trust these roots and JWT keys from now on. `save` makes them known to others."""
        addition = TrustBundle(self.own.trust_domain, tuple(roots), tuple(keys))
        self._replace(merged(self.own, addition, self._clock()))

    def prune(self) -> None:
        """Drop authorities that have expired."""
        self._replace(merged(self.own, TrustBundle(self.own.trust_domain), self._clock()))

    async def save(self) -> None:
        """Store what is not stored yet, merged with what other servers have stored. Raises DatastoreError."""
        for _ in range(_ATTEMPTS):
            if self.saved:
                return
            stored = await asyncio.to_thread(self._datastore.bundle, self.own.trust_domain)
            try:
                known = self.own if stored is None else bundles.decode(self.own.trust_domain, stored)
            except bundles.BundleError as error:
                raise DatastoreError(f"{self._datastore}: the bundle of {self.own.trust_domain}: {error}") from None
            ours = self.own
            wanted = replace(merged(ours, known, self._clock()), sequence=max(ours.sequence, known.sequence))
            if stored is not None and same_authorities(wanted, known):
                written = True
            else:
                wanted = replace(wanted, sequence=wanted.sequence + 1)
                written = await asyncio.to_thread(
                    self._datastore.put_bundle, self.own.trust_domain, bundles.encode(wanted, expiries=True), stored
                )
            if written and self.own is ours:
                self.own, self.saved = wanted, True
        if not self.saved:
            raise DatastoreError(f"{self._datastore}: the bundle of {self.own.trust_domain} is contended")

    def _replace(self, wanted: TrustBundle) -> None:
        if not same_authorities(wanted, self.own):
            self.own, self.saved = wanted, False

    def _take_own(self, document: bytes) -> None:
        try:
            known = bundles.decode(self.own.trust_domain, document)
        except bundles.BundleError as error:
            log.error("%s: the bundle of %s: %s; the one at hand stays", self._datastore, self.own.trust_domain, error)
            return
        wanted = merged(self.own, known, self._clock())
        if not same_authorities(wanted, self.own):
            self.own = replace(wanted, sequence=max(self.own.sequence, known.sequence))

    def _take_federated(self, trust_domain: str, document: bytes) -> None:
        try:
            self.federated[trust_domain] = bundles.decode(trust_domain, document)
        except bundles.BundleError as error:
            log.error("%s: the bundle of %s: %s; nobody of it is believed", self._datastore, trust_domain, error)
