"""The core of an identity server, which knows, issues and announces without any socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from cryptography import x509
from prometheus_client import Counter

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common import jwtsvid
from nginx_mesh.identity.common.bundle import BundleError, TrustBundle
from nginx_mesh.identity.common.client import (
    Announcement,
    RefusedError,
    Registration,
    SvidAnswer,
    SvidRequest,
    UnavailableError,
)
from nginx_mesh.identity.common.entry import RegistrationEntry
from nginx_mesh.identity.common.keymanager import KeyManager, KeyManagerError
from nginx_mesh.identity.common.keys import PublicKey, key_id_of
from nginx_mesh.identity.common.latest import Latest
from nginx_mesh.identity.common.workload import JwtSvid
from nginx_mesh.identity.common.x509svid import CLOCK_SKEW, SvidError, authority_key_id, certificate_der, issue_svid

from .bundlekeeper import BundleKeeper
from .ca import Ca, Retired, usable
from .camanager import CaManager
from .csr import public_key_of
from .datastore.base import Changes, Datastore, DatastoreError, available
from .registrations import entry_of, is_entry_id
from .settings import JWT_TTL, IdentitySettings
from .upstream.base import UpstreamAuthority, UpstreamError

log = logging.getLogger(__name__)

MAX_BATCH = 500
"""How many SVIDs one request may ask for."""

_TURN_SECONDS = 1.0
_MAX_AUDIENCE = 20
# How many issued SVIDs are remembered, for operators to see.
_MAX_ISSUED = 50_000
_COMPLAINT_INTERVAL = 60.0
_NOT_REGISTERED = "it is not registered for this agent"

_svids = Counter("nginx_mesh_svids_issued_total", "SVIDs that were issued, whoever they are for.", ["kind"])
for _kind in ("x509", "jwt"):
    _svids.labels(_kind)
_refusals = Counter("nginx_mesh_svids_refused_total", "X.509-SVIDs that agents asked for and were refused.")


@dataclass(frozen=True)
class Issued:
    """What is remembered of an SVID that this process issued. `issuer` is a key identifier, times are Unix seconds."""

    serial: int
    issuer: str
    not_after: float


class Authority:
    """Signs the SVIDs of registered workloads. One event loop owns it.

    `clock` is the wall clock in Unix seconds, which may be set while the server runs. Without `upstream`, the CA signs
    itself.
    """

    def __init__(
        self,
        settings: IdentitySettings,
        *,
        key_manager: KeyManager,
        datastore: Datastore,
        upstream: UpstreamAuthority | None = None,
        server_id: str = "local",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.datastore = datastore
        self.key_manager = key_manager
        self.upstream = upstream
        self.server_id = server_id
        self.clock = clock
        self.bundles = BundleKeeper(datastore, settings.trust_domain, clock, refresh_hint=_refresh_hint(settings))
        self.issued: OrderedDict[str, Issued] = OrderedDict()
        self._cas = CaManager(
            settings.ca_settings(),
            upstream,
            key_manager=key_manager,
            datastore=datastore,
            bundles=self.bundles,
            server_id=server_id,
            clock=clock,
        )
        self._cursor = 0
        self._turning = asyncio.Lock()
        self._wake = asyncio.Event()
        self._complained_at = float("-inf")
        self._announced = Latest(self._announcement())

    async def start(self) -> None:
        """Take up what an earlier process left. The server starts even while its upstream authority is down.

        Raises DatastoreError, KeyManagerError, CaRecordsError, BundleError.
        """
        self._cursor = (await asyncio.to_thread(self.datastore.changes, 0)).cursor
        await self.bundles.load()
        await self._cas.load()
        try:
            await self.turn()
        except UpstreamError as error:
            log.error("there is no CA yet, and nothing is issued: %s", error)

    async def run(self) -> None:
        """Do what is due, each second and at once after `reconfigure`, until cancelled.

        No sleep is longer, however far away the next event is, because the wall clock may be set at any time.
        """
        while True:
            self._wake.clear()
            try:
                await self.turn()
            except (UpstreamError, DatastoreError, KeyManagerError) as error:
                self._complain(error)
            except Exception:
                log.exception("a turn of the authority failed")
            with suppress(TimeoutError):
                # Not wait_for: that of Python 3.11 may lose a cancellation.
                async with asyncio.timeout(_TURN_SECONDS):
                    await self._wake.wait()

    async def turn(self) -> None:
        """Do all that is due now. Raises the errors of CaManager.turn."""
        async with self._turning:
            try:
                await self._follow_datastore()
                self.bundles.prune()
                await self._cas.turn()
            finally:
                self._announced.set(self._announcement())

    async def close(self) -> None:
        """Let go of the datastore and the upstream authority."""
        if self.upstream is not None:
            await self.upstream.close()
        await asyncio.to_thread(self.datastore.close)

    def reconfigure(self, settings: IdentitySettings) -> None:
        """Apply new settings. Raises ValueError if the trust domain or the upstream authority is another.

        A new key type or TTL of the CA applies to the next CA. A shorter TTL of SVIDs applies to those that exist, too.
        """
        fixed = (self.settings.trust_domain, self.settings.upstream)
        if (settings.trust_domain, settings.upstream) != fixed:
            raise ValueError("the trust domain and the upstream authority of a running server cannot change")
        self.settings, self._cas.settings = settings, settings.ca_settings()
        self._announced.set(self._announcement())
        self._wake.set()

    @property
    def current(self) -> Ca | None:
        """The CA that signs, None before there is one."""
        return self._cas.cas.current

    @property
    def issues(self) -> bool:
        """Whether there is a valid CA to issue from."""
        return usable(self.current, self.settings.ca_settings(), self.clock())

    @property
    def upcoming(self) -> Ca | None:
        """The CA that is prepared and does not sign yet."""
        return self._cas.cas.next

    @property
    def problem(self) -> str:
        """What keeps the next CA from being made, "" if nothing does."""
        return self._cas.problem

    @property
    def retired(self) -> tuple[Retired, ...]:
        """CAs whose SVIDs are being replaced."""
        return self._cas.cas.retired

    async def rotate(self, overlap: float) -> Ca:
        """Have a new CA sign in `overlap` seconds, and all SVIDs replaced from then on. Raises UpstreamError."""
        async with self._turning:
            ca = await self._cas.rotate(overlap)
            self._announced.set(self._announcement())
        self._wake.set()
        return ca

    def watch(self) -> AsyncGenerator[Announcement, None]:
        """The announcement as it is now, then again after every change."""
        return self._announced.values()

    async def register(self, agent: str, registrations: Sequence[Registration], *, exactly: bool = False) -> None:
        """Register all of these workloads of an agent, or none of them. With `exactly`, forget its others.

        Raises RefusedError, UnavailableError.
        """
        now, trust_domain = self.clock(), self.settings.trust_domain

        def store() -> None:
            self._store(agent, [entry_of(each, agent, trust_domain, now) for each in registrations], exactly)

        with available():
            await asyncio.to_thread(store)

    async def unregister(self, agent: str, entry_ids: Sequence[str]) -> None:
        """Forget workloads of the agent. Raises UnavailableError."""
        with available():
            known = await asyncio.to_thread(self.datastore.entries_by_id, entry_ids)
            own = [entry.entry_id for entry in known if entry.parent_id == agent]
            await asyncio.to_thread(self.datastore.delete_entries, own)
        for entry_id in own:
            self.issued.pop(entry_id, None)

    async def entries(self, agent: str, cursor: int) -> tuple[Changes, list[RegistrationEntry]]:
        """The changes since a cursor (0 is before everything), and the agent's entries that changed.

        Raises UnavailableError.
        """
        with available():
            changes = await asyncio.to_thread(self.datastore.changes, cursor)
            if cursor == 0 or not changes.complete:
                return changes, await asyncio.to_thread(self.datastore.entries, agent)
            found = await asyncio.to_thread(self.datastore.entries_by_id, changes.entries)
        return changes, [entry for entry in found if entry.parent_id == agent]

    async def sign(self, agent: str, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        """X.509-SVIDs for workloads of the agent, in the order of the requests. Refusals are logged, too.

        Raises UnavailableError, and RefusedError for too many requests.
        """
        if len(requests) > MAX_BATCH:
            raise RefusedError(f"{len(requests)} requests at once; the limit is {MAX_BATCH}")
        await self.ensure_ca()
        known = await self._known([each.entry_id for each in requests])
        answers = []
        for answer, issued in await asyncio.to_thread(self._sign_all, agent, requests, known):
            answers.append(answer)
            if issued is not None:
                self._remember(answer.entry_id, issued)
        return answers

    async def sign_jwt(self, agent: str, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """A JWT-SVID for a workload of the agent. Raises UnavailableError, RefusedError."""
        check_audience(audience)
        await self.ensure_ca()
        entry = (await self._known([entry_id])).get(entry_id)
        if entry is None or entry.parent_id != agent:
            raise RefusedError(f"entry {entry_id[:200]}: {_NOT_REGISTERED}")
        return self.issue_jwt(SpiffeId.parse(entry.spiffe_id), audience, entry.jwt_ttl or JWT_TTL)

    def issue_jwt(self, spiffe_id: SpiffeId, audience: Sequence[str], ttl: int) -> JwtSvid:
        """A JWT-SVID for any SPIFFE ID; `ttl` is seconds. Raises UnavailableError, RefusedError."""
        ca, now = self._signing_ca(), self.clock()
        expires_at = int(min(now + ttl, ca.not_after))
        try:
            token = jwtsvid.sign(ca.jwt_key, key_id_of(ca.jwt_key), spiffe_id, audience, now, expires_at - int(now))
        except jwtsvid.JwtError as error:
            raise RefusedError(str(error)) from None
        _svids.labels("jwt").inc()
        return JwtSvid(spiffe_id, token, expires_at)

    def issue(
        self, public_key: PublicKey, spiffe_id: SpiffeId, dns_names: Sequence[str], ttl: int
    ) -> tuple[x509.Certificate, ...]:
        """The chain of a new X.509-SVID for any SPIFFE ID, leaf first; `ttl` is seconds.

        Raises SvidError, UnavailableError.
        """
        ca, now = self._signing_ca(), self.clock()
        serial = x509.random_serial_number()
        leaf = issue_svid(ca.signer, public_key, spiffe_id, dns_names, now - CLOCK_SKEW, now + ttl, serial)
        _svids.labels("x509").inc()
        return (leaf, *ca.chain)

    async def _known(self, entry_ids: Iterable[str]) -> dict[str, RegistrationEntry]:
        """The entries with these IDs, as far as they exist, by ID."""
        sound = [entry_id for entry_id in entry_ids if is_entry_id(entry_id)]
        with available():
            found = await asyncio.to_thread(self.datastore.entries_by_id, sound)
        return {entry.entry_id: entry for entry in found}

    def _sign_all(
        self, agent: str, requests: Iterable[SvidRequest], known: dict[str, RegistrationEntry]
    ) -> list[tuple[SvidAnswer, Issued | None]]:
        answers: list[tuple[SvidAnswer, Issued | None]] = []
        for request in requests:
            entry = known.get(request.entry_id)
            try:
                if entry is None or entry.parent_id != agent:
                    raise RefusedError(_NOT_REGISTERED)
                answers.append(self._sign_one(entry, request.csr))
            except (RefusedError, SvidError) as error:
                _refusals.inc()
                log.warning("%s is refused an SVID for entry %.200r: %s", agent, request.entry_id, error)
                answers.append((SvidAnswer(request.entry_id, refused=str(error)), None))
        return answers

    def _sign_one(self, entry: RegistrationEntry, csr: bytes) -> tuple[SvidAnswer, Issued]:
        spiffe_id = SpiffeId.parse(entry.spiffe_id)
        public_key = public_key_of(csr, spiffe_id, entry.dns_names)
        chain = self.issue(public_key, spiffe_id, entry.dns_names, entry.x509_ttl or self.settings.svid_ttl)
        leaf = chain[0]
        not_after = leaf.not_valid_after_utc.timestamp()
        issued = Issued(leaf.serial_number, authority_key_id(leaf), not_after)
        return SvidAnswer(entry.entry_id, tuple(certificate_der(certificate) for certificate in chain)), issued

    def _remember(self, entry_id: str, issued: Issued) -> None:
        self.issued[entry_id] = issued
        self.issued.move_to_end(entry_id)
        if len(self.issued) > _MAX_ISSUED:
            self.issued.popitem(last=False)

    def _store(self, agent: str, wanted: list[RegistrationEntry], exactly: bool) -> None:
        """Write the entries that differ from those known. Raises RefusedError for a name that is another agent's."""
        names = [entry.entry_id for entry in wanted]
        known = {entry.entry_id: entry for entry in self.datastore.entries_by_id(names)}
        for entry in known.values():
            if entry.parent_id != agent:
                raise RefusedError(f"entry {entry.entry_id}: this name is another agent's")
        new = [entry for entry in wanted if not _same(entry, known.get(entry.entry_id))]
        if new:
            self.datastore.put_entries(new)
        if exactly:
            gone = {entry.entry_id for entry in self.datastore.entries(agent)} - set(names)
            self.datastore.delete_entries(gone)

    async def ensure_ca(self) -> None:
        """Make sure that there is a CA to issue from: the clock may have been set since `run` saw to it.

        Raises UnavailableError.
        """
        if not self.issues:
            try:
                await self.turn()
            except (UpstreamError, DatastoreError, KeyManagerError) as error:
                raise UnavailableError(f"there is no valid CA to issue from: {error}") from None
            self._signing_ca()

    def _signing_ca(self) -> Ca:
        current = self.current
        if current is None or not usable(current, self.settings.ca_settings(), self.clock()):
            raise UnavailableError("there is no valid CA to issue from")
        return current

    async def _follow_datastore(self) -> None:
        """Take in what other servers wrote to the datastore."""
        try:
            changes = await asyncio.to_thread(self.datastore.changes, self._cursor)
            if not changes.complete:
                await self.bundles.load()
            elif changes.bundles:
                await self.bundles.follow(changes.bundles)
        except (DatastoreError, BundleError) as error:
            self._complain(error)  # the bundles in memory remain in use
            return
        self._cursor = changes.cursor

    def _announcement(self) -> Announcement:
        bundles: dict[str, TrustBundle] = {**self.bundles.federated, self.settings.trust_domain: self.bundles.own}
        retired = frozenset(each.ca_id for each in self._cas.cas.retired)
        return Announcement(self.settings.trust_domain, bundles, self.settings.svid_ttl, retired)

    def _complain(self, error: Exception) -> None:
        now = self.clock()
        if abs(now - self._complained_at) >= _COMPLAINT_INTERVAL:
            self._complained_at = now
            log.error("%s", error)


def check_audience(audience: Sequence[str]) -> None:
    """Raise RefusedError unless it is a sound audience of a JWT-SVID."""
    if not audience or len(audience) > _MAX_AUDIENCE or not all(0 < len(each) <= 1000 for each in audience):
        raise RefusedError(f"audience: 1 to {_MAX_AUDIENCE} names of at most 1000 characters")


def _same(entry: RegistrationEntry, known: RegistrationEntry | None) -> bool:
    return known is not None and replace(known, created_at=0) == replace(entry, created_at=0)


def _refresh_hint(settings: IdentitySettings) -> int:
    """How often others should fetch the bundle, in seconds: often enough to know a CA before it signs."""
    return max(1, min(300, settings.ca_ttl // 60))
