"""The identities of the workloads on one machine, from an identity server.

The agent makes the private keys, which leave this machine never and this process for their workload only.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import Counter

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.client import (
    Announcement,
    AuthorityClient,
    RefusedError,
    Registration,
    SvidRequest,
    UnavailableError,
)
from nginx_mesh.identity.common.keys import KeyType, generate_key
from nginx_mesh.identity.common.latest import Latest
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.identity.common.workload import JwtRefusedError, JwtSvid, WorkloadContext, X509Svid
from nginx_mesh.identity.common.x509svid import certificates_pem, check_dns_names, request_svid
from nginx_mesh.protocol.state import Identity

from .provider import OnUpdate
from .renewal import IssuedSvid, RootKeyIds, is_due, issued_svid, replaced_at_once, replaced_early, root_key_ids
from .source import ProviderSource

log = logging.getLogger(__name__)

_SVID_KEY_TYPE: KeyType = "ec-p256"
# No sleep is longer, in seconds, so that a clock that was set is noticed soon.
_TURN_SECONDS = 1.0
_BATCH = 64
_FIRST_RETRY = 0.2
_SLOWEST_RETRY = 5.0
_REFUSED_RETRY = 5.0
_MAX_JWT_CACHE = 1000

_rotations = Counter("nginx_mesh_svid_rotations_total", "X.509-SVIDs that workloads were given, first ones included.")
_refusals = Counter("nginx_mesh_svid_refusals_total", "X.509-SVIDs of workloads that the authority refused.")


@dataclass(frozen=True)
class _Workload:
    registration: Registration
    issued: IssuedSvid | None = None
    identity: Identity | None = None
    retry_at: float = 0.0
    problem: str = ""


class Agent:
    """An IdentityProvider whose SVIDs an identity server signs.

    `clock` is the wall clock in Unix seconds, which may be set while the agent runs. `rng` spreads renewals.
    """

    def __init__(
        self,
        client: AuthorityClient,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._random = rng or random.Random()  # noqa: S311 - spreads renewals, guards nothing
        self._workloads: dict[str, _Workload] = {}
        self._unannounced: dict[str, Registration] = {}
        self._forgotten: set[str] = set()
        self._announcement: Announcement | None = None
        self._bundle = ""
        self._federated: dict[str, str] = {}
        self._roots: RootKeyIds = {}
        self._out_of_sync = True
        self._server_problem = "the identity server has not answered yet"
        self._renewal_problem = ""
        self._wake = asyncio.Event()
        # Counts of changes: of each workload that somebody follows, and of all of them together.
        self._changes: WeakValueDictionary[str, Latest[int]] = WeakValueDictionary()
        self._node_changes = Latest(0)
        self._tokens: dict[tuple[SpiffeId, tuple[str, ...]], tuple[float, JwtSvid]] = {}

    def register(self, workload: str, spiffe_id: SpiffeId, dns_names: Sequence[str] = ()) -> None:
        """See IdentityProvider."""
        check_dns_names(dns_names)
        registration = Registration(workload, str(spiffe_id), tuple(dict.fromkeys(dns_names)))
        known = self._workloads.get(workload)
        if known is not None and known.registration == registration:
            return
        if known is None or known.registration.spiffe_id != registration.spiffe_id:
            self._workloads[workload] = _Workload(registration)
            self._changed(workload)
        else:
            issued = None if known.issued is None else replaced_at_once(known.issued)
            self._workloads[workload] = replace(
                known, registration=registration, issued=issued, retry_at=0.0, problem=""
            )
        self._unannounced[workload] = registration
        self._forgotten.discard(workload)
        self._wake.set()

    def unregister(self, workload: str) -> None:
        """See IdentityProvider."""
        if self._workloads.pop(workload, None) is not None:
            self._unannounced.pop(workload, None)
            self._forgotten.add(workload)
            self._changed(workload)
            self._wake.set()

    def identity(self, workload: str) -> Identity | None:
        """See IdentityProvider."""
        known = self._workloads.get(workload)
        return None if known is None else known.identity

    def svid_status(self, workload: str) -> SvidStatus | None:
        """See IdentityProvider."""
        known = self._workloads.get(workload)
        if known is None:
            return None
        issued, registration = known.issued, known.registration
        if issued is None:
            return SvidStatus(registration.spiffe_id, registration.dns_names, problem=known.problem)
        return SvidStatus(
            registration.spiffe_id,
            registration.dns_names,
            f"{issued.svid.chain[0].serial_number:x}",
            issued.issuer,
            issued.not_before,
            issued.not_after,
            issued.renew_at,
            tuple(sorted(key_id for key_ids in self._roots.values() for key_id in key_ids)),
            known.problem,
        )

    @property
    def problem(self) -> str:
        """See IdentityProvider."""
        return self._server_problem or self._renewal_problem

    def source(self, workload: str) -> ProviderSource:
        """See IdentityProvider."""
        return ProviderSource(self, workload)

    def node_source(self) -> ProviderSource:
        """See IdentityProvider."""
        return ProviderSource(self, None)

    async def run(self, on_update: OnUpdate) -> None:
        """See IdentityProvider."""
        following = asyncio.create_task(self._follow())
        try:
            await self._take_turns(on_update)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def turn(self, on_update: OnUpdate) -> None:
        """Do all that is due now. Raises UnavailableError when the server does not answer."""
        self._pass_bundles_on(on_update)
        await self._register()
        due = self.due(self._clock())
        for start in range(0, len(due), _BATCH):
            await self._renew(due[start : start + _BATCH], on_update)
            self._pass_bundles_on(on_update)

    def due(self, now: float) -> list[str]:
        """The workloads that need a new SVID at `now` (Unix seconds)."""
        if self._announcement is None:
            return []
        return [name for name, known in self._workloads.items() if self._is_due(known, now)]

    def heard(self, announcement: Announcement) -> None:
        """Take in what the server announces."""
        newly_retired = announcement.retired - (self._announcement.retired if self._announcement else frozenset())
        changed = self._announcement is None or self._announcement.bundles != announcement.bundles
        self._announcement = announcement
        if changed:
            own = announcement.bundles.get(announcement.trust_domain, TrustBundle(announcement.trust_domain))
            self._bundle = certificates_pem(own.x509_authorities)
            self._federated = {
                name: certificates_pem(bundle.x509_authorities)
                for name, bundle in announcement.bundles.items()
                if name != announcement.trust_domain
            }
            self._roots = root_key_ids(own)
            for count in (*self._changes.values(), self._node_changes):
                count.set(count.value + 1)
        if newly_retired:
            self._replace_early(newly_retired)
        self._server_problem = ""
        self._wake.set()

    def changes(self, workload: str | None) -> AsyncGenerator[int, None]:
        """See ContextProvider."""
        if workload is None:
            return self._node_changes.values()
        return self._changes.setdefault(workload, Latest(0)).values()

    def context(self, workload: str | None) -> WorkloadContext | None:
        """See ContextProvider."""
        if self._announcement is None:
            return None
        svids: dict[SpiffeId, X509Svid] = {}
        for name in self._named(workload):
            known = self._workloads.get(name)
            if known is not None and known.issued is not None:
                svids[known.issued.svid.spiffe_id] = known.issued.svid
        return WorkloadContext(tuple(svids.values()), self._announcement.bundles) if svids else None

    async def jwt_svids(
        self, workload: str | None, audience: Sequence[str], spiffe_id: SpiffeId | None
    ) -> list[JwtSvid]:
        """See ContextProvider."""
        chosen: dict[SpiffeId, str] = {}
        for name in self._named(workload):
            known = self._workloads.get(name)
            own = None if known is None else SpiffeId.parse(known.registration.spiffe_id)
            if own is not None and spiffe_id in (None, own):
                chosen.setdefault(own, name)
        if not chosen:
            raise JwtRefusedError("no identity issued")
        try:
            return [await self._token(name, own, tuple(audience)) for own, name in chosen.items()]
        except RefusedError as error:
            raise JwtRefusedError(str(error)) from None
        except UnavailableError as error:
            raise JwtRefusedError(str(error), unavailable=True) from None

    def _named(self, workload: str | None) -> list[str]:
        return list(self._workloads) if workload is None else [workload]

    async def _token(self, workload: str, spiffe_id: SpiffeId, audience: tuple[str, ...]) -> JwtSvid:
        """A JWT-SVID, which is used again for half of its life."""
        now, key = self._clock(), (spiffe_id, audience)
        issued_at, token = self._tokens.get(key, (0.0, None))
        if token is not None and issued_at <= now < (issued_at + token.expires_at) / 2:
            return token
        token = await self._client.sign_jwt(workload, audience)
        if token.spiffe_id != spiffe_id:
            raise UnavailableError("the server does not know yet what was registered")
        self._tokens = {name: kept for name, kept in self._tokens.items() if now < kept[1].expires_at}
        if len(self._tokens) < _MAX_JWT_CACHE:
            self._tokens[key] = now, token
        return token

    async def _follow(self) -> None:
        """Listen to the server until cancelled."""
        retry = _FIRST_RETRY
        while True:
            try:
                async with aclosing(self._client.watch()) as announcements:
                    async for announcement in announcements:
                        if self._out_of_sync or retry != _FIRST_RETRY:
                            log.info("the identity server answers")
                        self._out_of_sync, retry = self._out_of_sync or retry != _FIRST_RETRY, _FIRST_RETRY
                        self.heard(announcement)
            except (UnavailableError, RefusedError) as error:
                self._server_problem = f"the identity server does not answer: {error}"
                if retry == _FIRST_RETRY:
                    log.warning("the identity server does not answer: %s; identities stay as they are", error)
            except Exception:
                log.exception("the identity server was not understood")
            await asyncio.sleep(retry)
            retry = min(2 * retry, _SLOWEST_RETRY)

    async def _take_turns(self, on_update: OnUpdate) -> None:
        retry = _FIRST_RETRY
        while True:
            self._wake.clear()
            try:
                await self.turn(on_update)
                retry, self._renewal_problem = _FIRST_RETRY, ""
            except (UnavailableError, RefusedError) as error:
                self._renewal_problem = f"SVIDs are not renewed: {error}"
                if retry == _FIRST_RETRY:
                    log.warning("SVIDs are not renewed: %s; trying again", error)
                await asyncio.sleep(retry)
                retry = min(2 * retry, _SLOWEST_RETRY)
                continue
            except Exception:
                log.exception("a turn of the agent failed")
            with suppress(TimeoutError):
                # Not wait_for: that of Python 3.11 may lose a cancellation.
                async with asyncio.timeout(_TURN_SECONDS):
                    await self._wake.wait()

    def _pass_bundles_on(self, on_update: OnUpdate) -> None:
        """Report identities whose bundles changed, before any SVID is replaced because of that."""
        for name, known in list(self._workloads.items()):
            identity = known.identity
            if identity is None or (identity.bundle, identity.federated) == (self._bundle, self._federated):
                continue
            if name in self._workloads:  # what was reported of another may have had this one unregistered
                self._report(on_update, name, replace(known, identity=self._identity(known.issued)))

    async def _register(self) -> None:
        """Let the server know all workloads, and no others. One that it refuses keeps no other from being known."""
        if self._announcement is None:
            return
        now = self._clock()
        wanted = [known.registration for known in self._workloads.values() if not _is_put_off(known, now)]
        forgotten = set(self._forgotten)
        if self._out_of_sync:
            self._out_of_sync = False  # before the call, during which the server may be lost again
            try:
                await self._register_all(wanted, exactly=True)
            except BaseException:
                self._out_of_sync = True
                raise
        else:
            if new := [each for each in wanted if each.entry_id in self._unannounced]:
                await self._register_all(new)
            if forgotten:
                await self._client.unregister(sorted(forgotten))
        self._forgotten -= forgotten

    async def _register_all(self, wanted: Sequence[Registration], *, exactly: bool = False) -> None:
        """Have these registered; with `exactly`, no others. Those that are refused are found out and put off."""
        try:
            await (self._client.sync if exactly else self._client.register)(wanted)
        except RefusedError as error:
            if len(wanted) > 1:
                half = len(wanted) // 2
                await self._register_all(wanted[:half])
                await self._register_all(wanted[half:])
            elif wanted:
                self._put_off(wanted[0], error)
            # The others are to be forgotten all the same: the next turn tries without those that are put off now.
            self._out_of_sync = self._out_of_sync or exactly
            return
        for each in wanted:
            if self._unannounced.get(each.entry_id) is each:
                del self._unannounced[each.entry_id]

    def _put_off(self, refused: Registration, reason: object) -> None:
        """Let a workload go without an SVID for a while, unless it changes; then register it again."""
        known = self._workloads.get(refused.entry_id)
        if known is None or known.registration is not refused:
            return
        log.error("workload %s (%s): no SVID: %s", refused.entry_id, refused.spiffe_id, reason)
        retry_at = self._clock() + _REFUSED_RETRY
        self._workloads[refused.entry_id] = replace(known, retry_at=retry_at, problem=str(reason))
        self._unannounced[refused.entry_id] = refused

    async def _renew(self, names: Sequence[str], on_update: OnUpdate) -> None:
        # The server does not know yet what was registered since this turn began: the next turn sees to it.
        wanted = {
            name: self._workloads[name].registration
            for name in names
            if name in self._workloads and name not in self._unannounced
        }
        keys = {name: generate_key(_SVID_KEY_TYPE) for name in wanted}
        ids = {name: SpiffeId.parse(registration.spiffe_id) for name, registration in wanted.items()}
        csrs = {name: request_svid(keys[name], ids[name]).public_bytes(Encoding.DER) for name in wanted}
        unfit = 0
        for answer in await self._client.sign([SvidRequest(name, csr) for name, csr in csrs.items()]):
            name, known = answer.entry_id, self._workloads.get(answer.entry_id)
            if known is None or known.registration is not wanted.get(name):
                continue  # it was unregistered or changed while the server signed
            if answer.refused:
                _refusals.inc()
                self._put_off(known.registration, answer.refused)
                continue
            assert self._announcement is not None  # noqa: S101 - nothing is due without
            try:
                chain = tuple(x509.load_der_x509_certificate(certificate) for certificate in answer.chain)
                svid = X509Svid(ids[name], chain, keys[name])
                issued = issued_svid(svid, self._announcement, self._clock(), self._random)
            except ValueError as error:
                self._put_off(known.registration, f"the server's answer is malformed: {error}")
                continue
            fresh = replace(known, issued=issued, identity=self._identity(issued), problem="")
            if self._is_due(fresh, self._clock()):
                unfit += 1
                fresh = replace(fresh, retry_at=self._clock() + _REFUSED_RETRY)
            _rotations.inc()
            self._report(on_update, name, fresh)
        if unfit:
            log.warning("%d of %d new SVIDs are not valid here and now: compare clocks and bundles", unfit, len(ids))

    def _is_due(self, known: _Workload, now: float) -> bool:
        if _is_put_off(known, now):
            return False
        assert self._announcement is not None  # noqa: S101 - `due` saw to it
        return known.issued is None or is_due(known.issued, self._roots, self._announcement.svid_ttl, now)

    def _replace_early(self, retired: frozenset[str]) -> None:
        """Have the SVIDs of retired CAs replaced soon."""
        now = self._clock()
        for name, known in self._workloads.items():
            if known.issued is not None and known.issued.issuer in retired:
                issued = replaced_early(known.issued, now, self._random)
                self._workloads[name] = replace(known, issued=issued)

    def _identity(self, issued: IssuedSvid | None) -> Identity | None:
        if issued is None:
            return None
        return Identity(
            spiffe_id=str(issued.svid.spiffe_id),
            svid=issued.chain_pem,
            key=issued.key_pem,
            bundle=self._bundle,
            federated=self._federated,
        )

    def _report(self, on_update: OnUpdate, name: str, known: _Workload) -> None:
        self._workloads[name] = known
        self._changed(name)
        if known.identity is None:
            return
        try:
            on_update(name, known.identity)
        except Exception:
            log.exception("workload %s: its new identity was not taken", name)

    def _changed(self, name: str) -> None:
        """Let those know who follow this workload, or all of them."""
        if (count := self._changes.get(name)) is not None:
            count.set(count.value + 1)
        self._node_changes.set(self._node_changes.value + 1)


def _is_put_off(known: _Workload, now: float) -> bool:
    return now < known.retry_at <= now + _REFUSED_RETRY
