"""The SVIDs of the workloads on this machine: one per registered workload, each with a private key of its own.

Decisions (`outdated`, `due`) take the time as an argument; `run` is the thin shell that makes them in time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from nginx_mesh.compile.state import Identity

from . import journal
from .ca import Authority, AuthoritySet, CaSettings, CertificateAuthority
from .keymanager import KeyManager, KeyManagerError
from .keys import KeyType, generate_key, to_pem
from .spiffe import SpiffeId
from .x509svid import SvidError, certificate_pem

log = logging.getLogger(__name__)

JOURNAL = "authorities"
"""The name that the CAs are kept under in a key manager."""

MIN_SVID_TTL = 2
_SVID_KEY_TYPE: KeyType = "ec-p256"
# SVIDs are renewed between 2/5 and 1/2 of their life, so that those issued together are not renewed together.
_RENEW_JITTER = 0.1
# How soon a clock that was set is noticed: no sleep is longer.
_CLOCK_CHECK_SECONDS = 1.0
# How far the clock may be set back, in seconds, before SVIDs count as living longer than their TTL.
_CLOCK_TOLERANCE = 2.0
# The event loop gets a turn after this many new SVIDs (some milliseconds of work).
_BATCH = 16
_COMPLAINT_INTERVAL = 60.0


@dataclass(frozen=True)
class IdentitySettings:
    """Settings of identity (mtls.trustDomain, svidTTL, caTTL, caKeyType). TTLs are seconds. Raises ValueError."""

    trust_domain: str
    svid_ttl: int = 3600
    ca_ttl: int = 720 * 3600
    ca_key_type: KeyType = "ec-p256"

    def __post_init__(self) -> None:
        self.ca_settings()
        if self.svid_ttl < MIN_SVID_TTL:
            raise ValueError(f"SVID TTL of {self.svid_ttl} s is shorter than {MIN_SVID_TTL} s")

    def ca_settings(self) -> CaSettings:
        """The part that is about the CA."""
        return CaSettings(self.trust_domain, self.ca_key_type, self.ca_ttl)


@dataclass(frozen=True)
class _Svid:
    authority: Authority
    not_before: float
    not_after: float
    renew_at: float


@dataclass(frozen=True)
class _Workload:
    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    svid: _Svid
    identity: Identity


class SvidIssuer:
    """Keeps every registered workload's `Identity` valid.

    `clock` is the wall clock in Unix seconds; it may be set while we run. Not thread-safe: one event loop owns it.

    Raises KeyManagerError or JournalError when what the key manager holds is damaged (it is left as it is), and
    KeyManagerError when it cannot keep the first CA.
    """

    def __init__(
        self,
        settings: IdentitySettings,
        key_manager: KeyManager,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._key_manager = key_manager
        self._clock = clock
        self._random = rng or random.Random()  # noqa: S311 - spreads renewals, guards nothing
        self._workloads: dict[str, _Workload] = {}
        self._changed = asyncio.Event()
        self._complained_at = float("-inf")

        kept = key_manager.get(JOURNAL)
        try:
            self._kept = AuthoritySet() if kept is None else journal.decode(kept)
        except journal.JournalError as error:
            raise journal.JournalError(f"{key_manager}: {JOURNAL}: {error}") from None
        self._ca = CertificateAuthority(settings.ca_settings(), self._kept)
        if self._ca.advance(clock()):
            self._keep(self._ca.authorities)
        self._bundle = self._bundle_pem()

    @property
    def settings(self) -> IdentitySettings:
        """The settings in force."""
        return self._settings

    @property
    def bundle(self) -> str:
        """Every root of the trust domain, PEM."""
        return self._bundle

    def reconfigure(self, settings: IdentitySettings) -> None:
        """Apply new settings; `run` reissues what they concern.

        A new CA key type or TTL applies to the next CA, a new SVID TTL at once where it is shorter. A new trust domain
        makes a new CA and moves every workload to the same path in it; the old roots stay in the bundle until they
        expire.
        """
        self._settings = settings
        self._ca.settings = settings.ca_settings()
        self._changed.set()

    def register(self, workload: str, spiffe_id: SpiffeId, dns_names: Sequence[str] = ()) -> Identity:
        """Issue an SVID to a workload (a pod's uid) and keep it fresh; the first identity is returned, not reported.

        Registering again with the same ID and names changes nothing, with others reissues at once.
        Raises SvidError for names that no certificate may carry; then nothing changed.
        """
        names = tuple(dict.fromkeys(dns_names))
        known = self._workloads.get(workload)
        if known is not None and (known.spiffe_id, known.dns_names) == (spiffe_id, names):
            return known.identity
        now = self._clock()
        if not self._ca.usable(now):  # the clock was set, and run() has not come round to it yet
            self._ca.advance(now)
            self._bundle = self._bundle_pem()
            self._changed.set()
        issued = self._workloads[workload] = self._issue(spiffe_id, names, now)
        return issued.identity

    def unregister(self, workload: str) -> None:
        """Forget a workload: its SVID is not renewed. Unknown ones are ignored."""
        self._workloads.pop(workload, None)

    def identity(self, workload: str) -> Identity | None:
        """The workload's present identity, None if it is not registered."""
        known = self._workloads.get(workload)
        return None if known is None else known.identity

    def outdated(self) -> list[str]:
        """Workloads whose identity lacks the present bundle."""
        return [name for name, known in self._workloads.items() if known.identity.bundle != self._bundle]

    def due(self, now: float) -> list[str]:
        """Workloads that need a new SVID at `now` (Unix seconds)."""
        current = self._ca.current
        if current is None or not self._ca.usable(now):
            return []
        return [name for name, known in self._workloads.items() if self._is_due(known, current, now)]

    async def run(self, on_update: Callable[[str, Identity], None]) -> None:
        """Until cancelled: take a `turn` each second, and at once after `reconfigure`.

        No sleep is longer, however far away the next event: the wall clock may be set meanwhile.
        """
        while True:
            self._changed.clear()
            await self.turn(on_update)
            try:
                await asyncio.wait_for(self._changed.wait(), _CLOCK_CHECK_SECONDS)
            except TimeoutError:
                continue

    async def turn(self, on_update: Callable[[str, Identity], None]) -> None:
        """Do what is due now: rotate CAs, reissue SVIDs, and report each changed identity to `on_update`.

        A changed bundle is reported for every workload before any SVID is reissued because of it.
        """
        await self._rotate_authorities()
        for workload in self.outdated():
            if known := self._workloads.get(workload):
                identity = msgspec.structs.replace(known.identity, bundle=self._bundle)
                self._workloads[workload] = replace(known, identity=identity)
                _report(on_update, workload, identity)
        for count, workload in enumerate(self.due(self._clock()), 1):
            if known := self._workloads.get(workload):
                self._renew(on_update, workload, known)
            if count % _BATCH == 0:
                await asyncio.sleep(0)

    def _renew(self, on_update: Callable[[str, Identity], None], workload: str, known: _Workload) -> None:
        moved = replace(known.spiffe_id, trust_domain=self._settings.trust_domain)
        try:
            issued = self._workloads[workload] = self._issue(moved, known.dns_names, self._clock())
        except SvidError as error:
            log.error("workload %s (%s): SVID not renewed: %s", workload, moved, error)
        else:
            _report(on_update, workload, issued.identity)

    def _is_due(self, known: _Workload, current: Authority, now: float) -> bool:
        svid, ttl = known.svid, self._settings.svid_ttl
        if svid.authority is not current or not svid.not_before <= now < svid.not_after:
            return True
        if svid.not_after > now + ttl + _CLOCK_TOLERANCE:  # a shorter TTL was set, or the clock was set back
            return True
        # Where the CA's own end cuts an SVID short, a new one under the same CA would not live longer.
        return now >= svid.renew_at and int(min(now + ttl, current.not_after)) > svid.not_after

    def _issue(self, spiffe_id: SpiffeId, dns_names: tuple[str, ...], now: float) -> _Workload:
        key = generate_key(_SVID_KEY_TYPE)
        certificate = self._ca.issue(key.public_key(), spiffe_id, dns_names, self._settings.svid_ttl, now)
        authority = self._ca.current
        assert authority is not None  # noqa: S101 - it just signed
        not_after = certificate.not_valid_after_utc.timestamp()
        share = 0.5 - self._random.uniform(0, _RENEW_JITTER)
        svid = _Svid(
            authority,
            certificate.not_valid_before_utc.timestamp(),
            not_after,
            renew_at=now + (not_after - now) * share,
        )
        identity = Identity(
            spiffe_id=str(spiffe_id), svid=certificate_pem(certificate), key=to_pem(key), bundle=self._bundle
        )
        return _Workload(spiffe_id, dns_names, svid, identity)

    async def _rotate_authorities(self) -> None:
        """Advance and keep the CAs in a thread: an RSA key takes a second, a disk may hang."""
        now, before = self._clock(), self._ca.authorities
        if self._ca.next_event(now) > now and before is self._kept:
            return
        ahead = CertificateAuthority(self._ca.settings, before)
        await asyncio.to_thread(ahead.advance, now)
        try:
            await asyncio.to_thread(self._keep, ahead.authorities)
        except KeyManagerError as error:
            # Issuing goes on with CAs that a restart would lose; keeping them is tried again on every turn.
            if abs(now - self._complained_at) >= _COMPLAINT_INTERVAL:
                self._complained_at = now
                log.error("CA not saved, a restart would lose it: %s", error)
        if self._ca.authorities is before:  # else register() had to advance it meanwhile
            self._ca.authorities = ahead.authorities
            self._bundle = self._bundle_pem()

    def _keep(self, authorities: AuthoritySet) -> None:
        self._key_manager.put(JOURNAL, journal.encode(authorities))
        self._kept = authorities

    def _bundle_pem(self) -> str:
        return "".join(certificate_pem(certificate) for certificate in self._ca.bundle())


def _report(on_update: Callable[[str, Identity], None], workload: str, identity: Identity) -> None:
    try:
        on_update(workload, identity)
    except Exception:
        log.exception("workload %s: its new identity was not taken", workload)
