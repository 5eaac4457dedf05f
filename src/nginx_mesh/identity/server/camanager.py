"""Makes the CAs of a server or has them signed upstream, publishes their roots, stores them, lets them take over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cryptography import x509

from nginx_mesh.identity.common.bundle import JwtAuthority
from nginx_mesh.identity.common.keymanager import KeyManager, KeyManagerError
from nginx_mesh.identity.common.keys import PrivateKey, from_pem, generate_key, key_id_of, to_pem
from nginx_mesh.identity.common.x509svid import CLOCK_SKEW, issue_authority, request_authority

from . import carecords
from .bundlekeeper import BundleKeeper
from .ca import Ca, CaSet, CaSettings, Step, activated, activation, next_step, usable
from .datastore.base import Datastore, DatastoreError
from .upstream.base import UpstreamAuthority, UpstreamError

log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 2.0
_SLOWEST_RETRY_SECONDS = 60.0
_COMPLAINT_INTERVAL = 60.0
# How often, in seconds, upstream is asked whether its roots changed.
_ROOTS_INTERVAL = 10.0


@dataclass(frozen=True, eq=False)
class _Request:
    """The keys of the next CA and the CSR for upstream. They are kept over attempts, as an approval may take long."""

    settings: CaSettings
    key: PrivateKey = field(repr=False)
    jwt_key: PrivateKey = field(repr=False)
    csr: x509.CertificateSigningRequest


class CaManager:
    """Owns the CAs of one server. One event loop owns it.

    `settings` may be replaced at any time, and then apply to the next CA.
    """

    def __init__(
        self,
        settings: CaSettings,
        upstream: UpstreamAuthority | None,
        *,
        key_manager: KeyManager,
        datastore: Datastore,
        bundles: BundleKeeper,
        server_id: str,
        clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.cas = CaSet()
        self._upstream = upstream
        self._key_manager = key_manager
        self._datastore = datastore
        self._bundles = bundles
        self._server_id = server_id
        self._clock = clock
        self._request: _Request | None = None
        self._unsaved = False
        self._obsolete: list[Ca] = []
        self._retry_at = float("-inf")
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._failure: UpstreamError | None = None
        self._asked_roots_at = float("-inf")
        self._complained_at = float("-inf")

    async def load(self) -> None:
        """Take up the CAs of an earlier process.

        Raises DatastoreError, KeyManagerError or CaRecordsError. What is damaged is left as it is.
        """
        kept = await asyncio.to_thread(self._datastore.ca_records, self._server_id)
        if kept is None:
            return
        try:
            self.cas = await asyncio.to_thread(carecords.decode, kept, self._load_key)
        except carecords.CaRecordsError as error:
            raise carecords.CaRecordsError(f"{self._datastore}: CA records of {self._server_id}: {error}") from None
        if self.cas.current is None:
            log.warning("the keys of the former CA are gone (%s): a new CA is made", self._key_manager)
        for ca in (self.cas.current, self.cas.next):
            if ca is not None:  # a bundle that was lost, or is of another time than the CA records, may lack them
                await self._bundles.add(() if ca.chain else (ca.certificate,), (_jwt_authority(ca),))

    @property
    def problem(self) -> str:
        """Why the upstream authority did not sign the CA that is due, "" when it did or none is."""
        return "" if self._failure is None else str(self._failure)

    async def turn(self) -> None:
        """Do all that is due now. Failures are logged, and the next turn tries again.

        Raises UpstreamError, DatastoreError or KeyManagerError only when there is no usable CA afterwards.
        """
        await self._follow_upstream_roots()
        while (step := next_step(self.cas, self.settings, self._clock())) is not None:
            if step is Step.ACTIVATE and self._can_wait():
                await self._save()
                if self._unsaved:
                    break  # other servers may not know its root yet, and a restart would lose it
            if not await self._take(step):
                break
        await self._save()

    async def rotate(self, overlap: float) -> Ca:
        """Prepare a CA now, or take the one that is prepared; it signs in `overlap` seconds at the latest.

        The present CA is retired then: its SVIDs are replaced early. Raises UpstreamError.
        """
        now = self._clock()
        if next_step(self.cas, self.settings, now) is Step.DISCARD:
            await self._take(Step.DISCARD)
        current, upcoming = self.cas.current, self.cas.next
        when = now + overlap
        if current is not None and usable(current, self.settings, now):
            when = min(when, current.soonest_handover(now))
        if upcoming is None:
            upcoming = await self._prepare(when)
        else:
            upcoming = replace(upcoming, activate_at=min(upcoming.activate_at, when))
        self._replace(CaSet(current, replace(upcoming, retires_previous=True), self.cas.retired))
        await self._save()
        log.info("CA %s was asked for; it signs from %.0f s on", upcoming.ca_id, max(0, upcoming.activate_at - now))
        return upcoming

    def _can_wait(self) -> bool:
        """Whether the next CA need not sign yet: the present one can, or none ever did."""
        return self.cas.current is None or usable(self.cas.current, self.settings, self._clock())

    async def _take(self, step: Step) -> bool:
        """Take one step. Returns whether there may be another."""
        now, cas = self._clock(), self.cas
        match step:
            case Step.DISCARD:
                assert cas.next is not None  # noqa: S101 - it is what is discarded
                log.info("CA %s, prepared and never used, is not what is wanted now", cas.next.ca_id)
                self._obsolete.append(cas.next)
                self._replace(CaSet(cas.current, None, cas.retired))
            case Step.PREPARE:
                if now < self._retry_at <= now + _SLOWEST_RETRY_SECONDS:
                    if self._failure is not None and not usable(cas.current, self.settings, now):
                        raise self._failure
                    return False
                try:
                    prepared = await self._prepare(activation(cas, self.settings, now))
                except UpstreamError as error:
                    self._put_off(error, now)
                    return False
                self._replace(CaSet(cas.current, prepared, cas.retired))
                await self._save()
                log.info(
                    "CA %s is prepared; it expires at %s", prepared.ca_id, prepared.certificate.not_valid_after_utc
                )
            case Step.ACTIVATE:
                assert cas.next is not None  # noqa: S101 - it is what is activated
                if cas.current is not None:
                    self._obsolete.append(cas.current)
                self._replace(activated(cas, now))
                log.info("CA %s signs from now on", cas.next.ca_id)
        return True

    async def _prepare(self, activate_at: float) -> Ca:
        """A new CA, whose root is in the bundle when this returns. Raises UpstreamError."""
        settings, now = self.settings, self._clock()
        created_at = int(now)
        not_before, not_after = created_at - CLOCK_SKEW, created_at + settings.ttl
        intermediates: tuple[x509.Certificate, ...] = ()
        limit = float("inf")
        if self._upstream is None:
            key, jwt_key = await self._new_keys()
            serial = x509.random_serial_number()
            certificate = issue_authority(key, settings.trust_domain, not_before, not_after, serial)
            roots: tuple[x509.Certificate, ...] = (certificate,)
        else:
            if self._request is None or self._request.settings != settings:
                key, jwt_key = await self._new_keys()
                csr = request_authority(key, settings.trust_domain, x509.random_serial_number())
                self._request = _Request(settings, key, jwt_key, csr)
            key, jwt_key = self._request.key, self._request.jwt_key
            minted = await self._upstream.mint_ca(self._request.csr, not_before, not_after)
            self._request = None
            certificate, *rest = minted.chain
            intermediates, roots, limit = tuple(rest), minted.roots, minted.limit
        ca = Ca(certificate, intermediates, key, jwt_key, settings, created_at, activate_at, limit)
        if not ca.valid(now):
            raise UpstreamError(
                f"{self._upstream} signed a CA that is not valid now ({certificate.not_valid_before_utc} to "
                f"{certificate.not_valid_after_utc}, or what is above it is not): compare the clocks"
            )
        await self._bundles.add(roots, (_jwt_authority(ca),))
        self._retry_at, self._retry_seconds, self._failure = float("-inf"), _FIRST_RETRY_SECONDS, None
        return ca

    async def _new_keys(self) -> tuple[PrivateKey, PrivateKey]:
        """Keys for a CA and its JWT-SVIDs."""
        key_type = self.settings.key_type
        return await asyncio.to_thread(generate_key, key_type), await asyncio.to_thread(generate_key, key_type)

    def _put_off(self, error: UpstreamError, now: float) -> None:
        """Log that upstream failed, and when to try again. Raises the error if no CA can issue until then."""
        self._retry_at = now + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, _SLOWEST_RETRY_SECONDS)
        self._failure = error
        current = self.cas.current
        if current is None or not usable(current, self.settings, now):
            raise error
        log.error(
            "the next CA is delayed: %s. Trying again in %.0f s; the present CA issues on until it expires, in %.0f s",
            error,
            self._retry_at - now,
            current.not_after - now,
        )

    async def _follow_upstream_roots(self) -> None:
        now = self._clock()
        if self._upstream is None or abs(now - self._asked_roots_at) < _ROOTS_INTERVAL:
            return
        self._asked_roots_at = now
        try:
            roots = await self._upstream.roots()
        except UpstreamError as error:
            log.warning("the roots of the upstream authority are not known anew: %s", error)
            return
        if roots:
            await self._bundles.add(roots, ())

    def _replace(self, cas: CaSet) -> None:
        self.cas = cas
        self._unsaved = True

    async def _save(self) -> None:
        """Keep the keys and the CA records. Every turn tries again until they are kept."""
        if not self._unsaved and self._bundles.saved:
            return
        cas = self.cas
        try:
            await self._bundles.save()
            await asyncio.to_thread(self._put, cas)
        except (DatastoreError, KeyManagerError) as error:
            if cas.current is None:  # a first CA that a restart would lose is worse than none
                raise
            # Issuing goes on, although a restart would lose these CAs.
            if abs(self._clock() - self._complained_at) >= _COMPLAINT_INTERVAL:
                self._complained_at = self._clock()
                log.error("CA not saved, a restart would lose it: %s", error)
            return
        self._unsaved = self.cas is not cas
        self._obsolete.clear()

    def _put(self, cas: CaSet) -> None:
        names = {name for ca in (cas.current, cas.next) if ca is not None for name in carecords.key_names(ca)}
        for ca in (cas.current, cas.next):
            if ca is not None:
                for name, key in zip(carecords.key_names(ca), (ca.key, ca.jwt_key), strict=True):
                    if self._key_manager.get(name) is None:
                        self._key_manager.put(name, to_pem(key).encode())
        self._datastore.put_ca_records(self._server_id, carecords.encode(cas))
        for ca in self._obsolete:
            for name in set(carecords.key_names(ca)) - names:
                self._key_manager.delete(name)

    def _load_key(self, name: str) -> PrivateKey | None:
        kept = self._key_manager.get(name)
        try:
            return None if kept is None else from_pem(kept.decode())
        except ValueError as error:
            raise KeyManagerError(f"{self._key_manager}: {name}: {error}") from None


def _jwt_authority(ca: Ca) -> JwtAuthority:
    return JwtAuthority(key_id_of(ca.jwt_key), ca.jwt_key.public_key(), int(ca.not_after))
