"""The identities of the workloads on one machine, from an identity server: keys are made here and never leave."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from prometheus_client import Counter

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.client import (
    Announcement,
    AuthorityClient,
    RefusedError,
    Registration,
    SvidAnswer,
    SvidRequest,
    UnavailableError,
)
from nginx_mesh.identity.common.keys import KeyType, generate_key, to_pem
from nginx_mesh.identity.common.latest import Latest
from nginx_mesh.identity.common.workload import JwtRefusedError, JwtSvid, WorkloadContext, X509Svid
from nginx_mesh.identity.common.x509svid import certificate_pem, check_dns_names, request_svid
from nginx_mesh.identity.server.authority import issuer_id
from nginx_mesh.identity.server.ca import key_identifier
from nginx_mesh.protocol.state import Identity

from .provider import OnUpdate

log = logging.getLogger(__name__)

_SVID_KEY_TYPE: KeyType = "ec-p256"
# SVIDs are renewed between 2/5 and 1/2 of their life, so that those issued together are not renewed together.
_RENEW_JITTER = 0.1
# Over how many seconds SVIDs are replaced whose CA is retired.
_RETIRE_SPREAD = 10.0
# How soon a clock that was set is noticed: no sleep is longer.
_TURN_SECONDS = 1.0
# How far the clock may be set back, in seconds, before SVIDs count as living longer than their TTL.
_CLOCK_TOLERANCE = 2.0
# How far, in seconds, the server's clock may be ahead of ours without that.
_CLOCK_AHEAD = 300.0
_BATCH = 64
_FIRST_RETRY = 0.2
_SLOWEST_RETRY = 5.0
_REFUSED_RETRY = 5.0
_MAX_JWT_CACHE = 1000

_rotations = Counter("nginx_mesh_svid_rotations_total", "X.509-SVIDs that workloads were given, first ones included.")
_refusals = Counter("nginx_mesh_svid_refusals_total", "X.509-SVIDs of workloads that the authority refused.")


@dataclass(frozen=True)
class _Issued:
    """An SVID with what is asked about it again and again. Times are Unix seconds.

    `issuer` is the key identifier of the CA that signed it, `anchor` the name and key identifier of the root that its
    chain leads to. `ahead` is by how much the server's clock seemed to be ahead when it was issued.
    """

    svid: X509Svid
    pem: str
    key_pem: str = field(repr=False)
    issuer: str
    anchor: tuple[x509.Name, str]
    not_before: float
    not_after: float
    renew_at: float
    ahead: float


@dataclass(frozen=True)
class _Workload:
    registration: Registration
    issued: _Issued | None = None
    identity: Identity | None = None
    retry_at: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Holding:
    """What a workload holds: names, and its SVID if it has one. Times are Unix seconds, the bundle's roots key IDs.

    `problem` is why it was refused the SVID that is due, as far as that is known.
    """

    spiffe_id: str
    dns_names: tuple[str, ...]
    serial: str = ""
    issuer: str = ""
    not_before: float = 0.0
    not_after: float = 0.0
    renew_at: float = 0.0
    bundle: tuple[str, ...] = ()
    problem: str = ""


class Agent:
    """An IdentityProvider before an identity server. `clock` is the wall clock in Unix seconds; it may be set."""

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
        self._anchors: dict[x509.Name, frozenset[str]] = {}
        self._out_of_sync = True
        self._away = "the identity server has not answered yet"
        self._unable = ""
        self._wake = asyncio.Event()
        self._ticks: WeakValueDictionary[str, Latest[int]] = WeakValueDictionary()
        self._node_tick = Latest(0)
        self._tokens: dict[tuple[SpiffeId, tuple[str, ...]], tuple[float, JwtSvid]] = {}

    def register(self, workload: str, spiffe_id: SpiffeId, dns_names: Sequence[str] = ()) -> None:
        """See IdentityProvider."""
        check_dns_names(dns_names)
        registration = Registration(workload, str(spiffe_id), tuple(dict.fromkeys(dns_names)))
        known = self._workloads.get(workload)
        if known is not None and known.registration == registration:
            return
        moved = known is None or known.registration.spiffe_id != registration.spiffe_id
        self._workloads[workload] = (
            _Workload(registration)
            if moved or known is None
            else replace(known, registration=registration, issued=_expired(known.issued), retry_at=0.0, problem="")
        )
        self._unannounced[workload] = registration
        self._forgotten.discard(workload)
        if moved:
            self._tell(workload)
        self._wake.set()

    def unregister(self, workload: str) -> None:
        """See IdentityProvider."""
        if self._workloads.pop(workload, None) is not None:
            self._unannounced.pop(workload, None)
            self._forgotten.add(workload)
            self._tell(workload)
            self._wake.set()

    def identity(self, workload: str) -> Identity | None:
        """See IdentityProvider."""
        known = self._workloads.get(workload)
        return None if known is None else known.identity

    def svid(self, workload: str) -> X509Svid | None:
        """The workload's SVID as it is now."""
        known = self._workloads.get(workload)
        return None if known is None or known.issued is None else known.issued.svid

    def holding(self, workload: str) -> Holding | None:
        """What a workload holds, for people; None when it is not registered."""
        known = self._workloads.get(workload)
        if known is None:
            return None
        issued, registration = known.issued, known.registration
        if issued is None:
            return Holding(registration.spiffe_id, registration.dns_names, problem=known.problem)
        return Holding(
            registration.spiffe_id,
            registration.dns_names,
            f"{issued.svid.chain[0].serial_number:x}",
            issued.issuer,
            issued.not_before,
            issued.not_after,
            issued.renew_at,
            tuple(sorted(key_id for key_ids in self._anchors.values() for key_id in key_ids)),
            known.problem,
        )

    @property
    def problem(self) -> str:
        """See IdentityProvider."""
        return self._away or self._unable

    def source(self, workload: str) -> _PodSource:
        """See IdentityProvider."""
        return _PodSource(self, workload)

    def node_source(self) -> _NodeSource:
        """See IdentityProvider."""
        return _NodeSource(self)

    async def run(self, on_update: OnUpdate) -> None:
        """See IdentityProvider."""
        following = asyncio.create_task(self._follow())
        try:
            await self._turns(on_update)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def turn(self, on_update: OnUpdate) -> None:
        """Do what is due now. Raises UnavailableError when the server does not answer."""
        self._pass_bundles_on(on_update)
        await self._register()
        due = self.due(self._clock())
        for start in range(0, len(due), _BATCH):
            await self._renew(due[start : start + _BATCH], on_update)
            self._pass_bundles_on(on_update)

    def due(self, now: float) -> list[str]:
        """Workloads that need a new SVID at `now` (Unix seconds)."""
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
            self._bundle = _pem(own)
            self._federated = {
                name: _pem(bundle) for name, bundle in announcement.bundles.items() if name != announcement.trust_domain
            }
            names = {root.subject for root in own.x509_authorities}
            self._anchors = {
                name: frozenset(key_identifier(root) for root in own.x509_authorities if root.subject == name)
                for name in names
            }
            for tick in (*self._ticks.values(), self._node_tick):
                tick.set(tick.value + 1)
        if newly_retired:
            self._replace_early(newly_retired)
        self._away = ""
        self._wake.set()

    def context(self, workload: str) -> WorkloadContext | None:
        """All that one workload holds, None while it has no identity."""
        known = self._workloads.get(workload)
        if known is None or known.issued is None or self._announcement is None:
            return None
        return WorkloadContext((known.issued.svid,), self._announcement.bundles)

    def node_context(self) -> WorkloadContext | None:
        """All that the workloads of this machine hold, one SVID for each identity."""
        if self._announcement is None:
            return None
        svids = {
            known.registration.spiffe_id: known.issued.svid
            for known in self._workloads.values()
            if known.issued is not None
        }
        return WorkloadContext(tuple(svids.values()), self._announcement.bundles) if svids else None

    async def jwt_svids(
        self, workloads: Sequence[str], audience: Sequence[str], spiffe_id: SpiffeId | None
    ) -> list[JwtSvid]:
        """JWT-SVIDs of these workloads, one for each identity. Raises JwtRefusedError."""
        chosen: dict[SpiffeId, str] = {}
        for name in workloads:
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

    async def _token(self, workload: str, spiffe_id: SpiffeId, audience: tuple[str, ...]) -> JwtSvid:
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
        """Listen to the server, for ever."""
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
                self._away = f"the identity server does not answer: {error}"
                if retry == _FIRST_RETRY:
                    log.warning("the identity server does not answer: %s; identities stay as they are", error)
            except Exception:
                log.exception("the identity server was not understood")
            await asyncio.sleep(retry)
            retry = min(2 * retry, _SLOWEST_RETRY)

    async def _turns(self, on_update: OnUpdate) -> None:
        retry = _FIRST_RETRY
        while True:
            self._wake.clear()
            try:
                await self.turn(on_update)
                retry, self._unable = _FIRST_RETRY, ""
            except (UnavailableError, RefusedError) as error:
                self._unable = f"SVIDs are not renewed: {error}"
                if retry == _FIRST_RETRY:
                    log.warning("SVIDs are not renewed: %s; trying again", error)
                await asyncio.sleep(retry)
                retry = min(2 * retry, _SLOWEST_RETRY)
                continue
            except Exception:
                log.exception("a turn of the agent failed")
            with suppress(TimeoutError):
                # wait_for of Python 3.11 may lose a cancellation.
                async with asyncio.timeout(_TURN_SECONDS):
                    await self._wake.wait()

    def _pass_bundles_on(self, on_update: OnUpdate) -> None:
        for name, known in list(self._workloads.items()):
            identity = known.identity
            if identity is None or (identity.bundle, identity.federated) == (self._bundle, self._federated):
                continue
            if name in self._workloads:  # else unregistered by whom we told of another
                self._report(on_update, name, replace(known, identity=self._identity(known.issued)))

    async def _register(self) -> None:
        """Let the server know all workloads, and no others. One that it refuses keeps no other from being known."""
        if self._announcement is None:
            return
        now = self._clock()
        wanted = [known.registration for known in self._workloads.values() if not _is_put_off(known, now)]
        forgotten = set(self._forgotten)
        if self._out_of_sync:
            self._out_of_sync = False  # now: it may be lost again meanwhile
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
            self._out_of_sync = self._out_of_sync or exactly  # again, without those that are put off now
            return
        for each in wanted:
            if self._unannounced.get(each.entry_id) is each:
                del self._unannounced[each.entry_id]

    def _put_off(self, refused: Registration, reason: object) -> None:
        """No SVID for a workload for a while, unless it changes; then it is registered again."""
        known = self._workloads.get(refused.entry_id)
        if known is None or known.registration is not refused:
            return
        log.error("workload %s (%s): no SVID: %s", refused.entry_id, refused.spiffe_id, reason)
        retry_at = self._clock() + _REFUSED_RETRY
        self._workloads[refused.entry_id] = replace(known, retry_at=retry_at, problem=str(reason))
        self._unannounced[refused.entry_id] = refused

    async def _renew(self, names: Sequence[str], on_update: OnUpdate) -> None:
        # What was registered meanwhile is not known to the server yet: the next turn sees to it.
        wanted = {
            name: self._workloads[name].registration
            for name in names
            if name in self._workloads and name not in self._unannounced
        }
        keys = {name: generate_key(_SVID_KEY_TYPE) for name in wanted}
        ids = {name: SpiffeId.parse(registration.spiffe_id) for name, registration in wanted.items()}
        requests = [
            SvidRequest(name, request_svid(keys[name], ids[name]).public_bytes(serialization.Encoding.DER))
            for name in wanted
        ]
        unfit = 0
        for answer in await self._client.sign(requests):
            name, known = answer.entry_id, self._workloads.get(answer.entry_id)
            if known is None or known.registration is not wanted.get(name):
                continue  # it went away or changed meanwhile
            if answer.refused:
                _refusals.inc()
                self._put_off(known.registration, answer.refused)
                continue
            try:
                issued = self._take(X509Svid(ids[name], (), keys[name]), answer)
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

    def _take(self, svid: X509Svid, answer: SvidAnswer) -> _Issued:
        """The SVID that an answer makes of a key. Raises ValueError."""
        assert self._announcement is not None  # noqa: S101 - nothing is due without
        now = self._clock()
        chain = tuple(x509.load_der_x509_certificate(certificate) for certificate in answer.chain)
        not_after = min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
        share = 0.5 - self._random.uniform(0, _RENEW_JITTER)
        renew_at = now + (not_after - now) * share
        ahead = min(max(0.0, not_after - now - self._announcement.svid_ttl), _CLOCK_AHEAD)
        if issuer_id(chain[0]) in self._announcement.retired:
            renew_at = min(renew_at, self._early(now, not_after))
        return _Issued(
            replace(svid, chain=chain),
            "".join(certificate_pem(certificate) for certificate in chain),
            to_pem(svid.key),
            issuer_id(chain[0]),
            (chain[-1].issuer, issuer_id(chain[-1])),
            chain[0].not_valid_before_utc.timestamp(),
            not_after,
            renew_at,
            ahead,
        )

    def _is_due(self, known: _Workload, now: float) -> bool:
        issued = known.issued
        if _is_put_off(known, now):
            return False
        if issued is None or not issued.not_before <= now < issued.not_after or not self._is_anchored(issued):
            return True
        assert self._announcement is not None  # noqa: S101 - `due` saw to it
        if issued.not_after > now + self._announcement.svid_ttl + issued.ahead + _CLOCK_TOLERANCE:
            return True  # a shorter TTL was set, or the clock was set back
        return now >= issued.renew_at

    def _is_anchored(self, issued: _Issued) -> bool:
        name, key_id = issued.anchor
        return name in self._anchors and (not key_id or key_id in self._anchors[name])

    def _replace_early(self, retired: frozenset[str]) -> None:
        now = self._clock()
        for name, known in self._workloads.items():
            issued = known.issued
            if issued is not None and issued.issuer in retired:
                renew_at = min(issued.renew_at, self._early(now, issued.not_after))
                self._workloads[name] = replace(known, issued=replace(issued, renew_at=renew_at))

    def _early(self, now: float, not_after: float) -> float:
        """When to replace an SVID whose CA is retired."""
        return now + self._random.uniform(0, min(_RETIRE_SPREAD, max(0.0, not_after - now) / 4))

    def _identity(self, issued: _Issued | None) -> Identity | None:
        if issued is None:
            return None
        return Identity(
            spiffe_id=str(issued.svid.spiffe_id),
            svid=issued.pem,
            key=issued.key_pem,
            bundle=self._bundle,
            federated=self._federated,
        )

    def _report(self, on_update: OnUpdate, name: str, known: _Workload) -> None:
        self._workloads[name] = known
        self._tell(name)
        if known.identity is None:
            return
        try:
            on_update(name, known.identity)
        except Exception:
            log.exception("workload %s: its new identity was not taken", name)

    def _tell(self, name: str) -> None:
        if (tick := self._ticks.get(name)) is not None:
            tick.set(tick.value + 1)
        self._node_tick.set(self._node_tick.value + 1)

    def _pod_tick(self, name: str) -> Latest[int]:
        return self._ticks.setdefault(name, Latest(0))


class _PodSource:
    """A WorkloadSource: one workload."""

    def __init__(self, agent: Agent, workload: str) -> None:
        self._agent = agent
        self._workload = workload

    async def updates(self) -> AsyncIterator[WorkloadContext | None]:
        """See WorkloadSource."""
        async with aclosing(self._agent._pod_tick(self._workload).values()) as ticks:
            async for _ in ticks:
                yield self._agent.context(self._workload)

    async def jwt_svids(self, audience: Sequence[str], spiffe_id: SpiffeId | None) -> list[JwtSvid]:
        """See WorkloadSource."""
        return await self._agent.jwt_svids([self._workload], audience, spiffe_id)


class _NodeSource:
    """A WorkloadSource: all workloads of the machine."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def updates(self) -> AsyncIterator[WorkloadContext | None]:
        """See WorkloadSource."""
        async with aclosing(self._agent._node_tick.values()) as ticks:
            async for _ in ticks:
                yield self._agent.node_context()

    async def jwt_svids(self, audience: Sequence[str], spiffe_id: SpiffeId | None) -> list[JwtSvid]:
        """See WorkloadSource."""
        return await self._agent.jwt_svids(list(self._agent._workloads), audience, spiffe_id)


def _is_put_off(known: _Workload, now: float) -> bool:
    return now < known.retry_at <= now + _REFUSED_RETRY


def _expired(issued: _Issued | None) -> _Issued | None:
    """The same SVID, to be replaced at once; it serves until then."""
    return None if issued is None else replace(issued, renew_at=0.0)


def _pem(bundle: TrustBundle) -> str:
    return "".join(certificate_pem(certificate) for certificate in bundle.x509_authorities)
