"""Keeps the bundles of the trust domains that we federate with up to date in the datastore."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nginx_mesh.identity.common.bundle import BundleError, TrustBundle, decode, encode
from nginx_mesh.identity.server.datastore.base import Datastore, DatastoreError, FederationRelationship

from .client import FederationError, check_relationship, fetch

log = logging.getLogger(__name__)

DEFAULT_INTERVAL = 300
"""Seconds between fetches of a bundle that gives no hint."""


@dataclass(frozen=True)
class Pace:
    """How often bundles are fetched. All values are seconds.

    The refresh hint of a bundle counts between `minimum` and `maximum`. After a failure the next try is in `retry`,
    then in twice that and so on, up to the interval. The list of relationships is read every `reload`.
    """

    minimum: float = 5
    maximum: float = 3600
    retry: float = 10
    reload: float = 5

    def interval(self, bundle: TrustBundle | None) -> float:
        """Seconds until the next fetch of a bundle."""
        hint = bundle.refresh_hint if bundle is not None else 0
        return min(max(hint or DEFAULT_INTERVAL, self.minimum), self.maximum)

    def retry_after(self, failures: int, bundle: TrustBundle | None) -> float:
        """Seconds until the next try, after so many failures in a row."""
        return min(self.retry * 2.0 ** min(failures - 1, 20), self.interval(bundle))


def objections(known: TrustBundle | None, fetched: TrustBundle) -> list[str]:
    """What is odd about a bundle that replaces another. It is taken all the same, as the endpoint proved who it is."""
    odd = []
    if not fetched.x509_authorities and not fetched.jwt_authorities:
        odd.append("it has no keys, so nothing of that trust domain is trusted any more")
    if known is None or not known.sequence or not fetched.sequence:
        return odd
    if fetched.sequence < known.sequence:
        odd.append(f"its sequence number went back from {known.sequence} to {fetched.sequence}")
    elif fetched.sequence == known.sequence and _keys(fetched) != _keys(known):
        odd.append(f"its keys changed, its sequence number {known.sequence} did not")
    return odd


class FederationPoller:
    """Polls the endpoint of every relationship in the datastore, each by itself. `own` is our trust domain.

    A bundle in the datastore is replaced only by one whose endpoint proved who it is. Every failure is logged, and the
    bundle stays. Several servers may poll for one datastore.
    """

    def __init__(
        self,
        datastore: Datastore,
        own: str,
        *,
        web_ca: Path | None = None,
        pace: Pace | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(0.9, 1.0),  # noqa: S311 - nobody gains by guessing
    ) -> None:
        self._datastore, self._own, self._web_ca = datastore, own, web_ca
        self._pace = pace or Pace()
        self._jitter = jitter
        self._reload = asyncio.Event()
        self._changed: set[str] = set()

    def reload(self, trust_domain: str) -> None:
        """Poll a trust domain again at once, because an operator entered or ended the relationship with it."""
        self._changed.add(trust_domain)
        self._reload.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        tasks: dict[FederationRelationship, asyncio.Task[None]] = {}
        try:
            while True:
                self._reload.clear()
                try:
                    wanted = set(await asyncio.to_thread(self._datastore.relationships))
                except DatastoreError as error:
                    log.warning("federation: relationships cannot be read: %s", error)
                    wanted = set(tasks)
                stale = {relationship for relationship in tasks if relationship.trust_domain in self._changed}
                self._changed.clear()
                for relationship in (tasks.keys() - wanted) | stale:
                    tasks.pop(relationship).cancel()
                for relationship in wanted - tasks.keys():
                    tasks[relationship] = asyncio.create_task(self._poll(relationship))
                try:
                    async with asyncio.timeout(self._pace.reload):
                        await self._reload.wait()
                except TimeoutError:
                    pass
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _poll(self, relationship: FederationRelationship) -> None:
        failures, bundle = 0, None
        while True:
            try:
                bundle = await self.update(relationship)
                failures = 0
                delay = self._pace.interval(bundle)
            except (FederationError, DatastoreError) as error:
                failures += 1
                delay = self._pace.retry_after(failures, bundle)
                log.warning("%s; the bundle stays as it is, next try in %.0f s", error, delay)
            except Exception:
                failures += 1
                delay = self._pace.retry_after(failures, bundle)
                log.exception("federation with %s failed; next try in %.0f s", relationship.trust_domain, delay)
            await asyncio.sleep(delay * self._jitter())

    async def update(self, relationship: FederationRelationship) -> TrustBundle:
        """Fetch once and store what is new. Raises FederationError, DatastoreError."""
        check_relationship(relationship, self._own)
        name = relationship.trust_domain
        stored = await asyncio.to_thread(self._datastore.bundles)
        fetched = await fetch(relationship, lambda domain: _decoded(domain, stored.get(domain)), self._web_ca)
        document = encode(fetched)
        if document == stored.get(name):
            return fetched
        if relationship not in await asyncio.to_thread(self._datastore.relationships):
            raise FederationError(f"federation with {name} ended meanwhile")
        odd = objections(_decoded(name, stored.get(name)), fetched)
        if await asyncio.to_thread(self._datastore.put_bundle, name, document, stored.get(name)):
            log.info("federation with %s: new bundle, sequence number %d", name, fetched.sequence)
            for objection in odd:
                log.warning("federation with %s: new bundle: %s", name, objection)
        else:
            log.info("federation with %s: another server was faster to store a bundle", name)
        return fetched


def _decoded(trust_domain: str, document: bytes | None) -> TrustBundle | None:
    try:
        return decode(trust_domain, document) if document is not None else None
    except BundleError as error:
        log.warning("federation: the stored bundle of %s is of no use: %s", trust_domain, error)
        return None


def _keys(bundle: TrustBundle) -> object:
    return bundle.x509_authorities, bundle.jwt_authorities
