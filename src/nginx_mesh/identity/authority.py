"""The core of an identity server: what it knows, issues and announces, without sockets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from . import jwtsvid
from .attestation.base import Attested
from .bundle import TrustBundle
from .bundlekeeper import BundleKeeper
from .ca import Ca, CaSettings, Retired, usable
from .camanager import CaManager
from .client import Announcement, RefusedError, Registration, SvidAnswer, SvidRequest, UnavailableError
from .datastore.base import AttestedNode, Changes, Datastore, DatastoreError, RegistrationEntry
from .keymanager import KeyManager, KeyManagerError
from .keys import KeyType, PublicKey, key_id_of, key_type_of
from .latest import Latest
from .registrations import entry_of, is_agent
from .spiffe import SpiffeId
from .upstream.base import UpstreamAuthority, UpstreamError
from .workload import JwtSvid
from .x509svid import CLOCK_SKEW, SvidError, issue_svid

log = logging.getLogger(__name__)

MIN_SVID_TTL = 2
MAX_BATCH = 500
"""How many SVIDs one request may ask for."""

_TURN_SECONDS = 1.0
_MAX_CSR = 8192
_MAX_AUDIENCE = 20
# How many issued SVIDs are remembered, to be shown.
_MAX_ISSUED = 50_000
_COMPLAINT_INTERVAL = 60.0


@dataclass(frozen=True)
class IdentitySettings:
    """Settings of identity (mtls.trustDomain, svidTTL, caTTL, caKeyType). TTLs are seconds. Raises ValueError.

    `upstream` tells one configuration of an upstream authority from another, "" for none (CaSettings).
    """

    trust_domain: str
    svid_ttl: int = 3600
    ca_ttl: int = 720 * 3600
    ca_key_type: KeyType = "ec-p256"
    upstream: str = ""
    jwt_ttl: int = 300
    agent_ttl: int = 24 * 3600

    def __post_init__(self) -> None:
        self.ca_settings()
        if self.svid_ttl < MIN_SVID_TTL:
            raise ValueError(f"SVID TTL of {self.svid_ttl} s is shorter than {MIN_SVID_TTL} s")

    def ca_settings(self) -> CaSettings:
        """The part that is about the CA."""
        return CaSettings(self.trust_domain, self.ca_key_type, self.ca_ttl, self.upstream)


@dataclass(frozen=True)
class Issued:
    """An SVID that this process issued. Times are Unix seconds."""

    spiffe_id: str
    serial: int
    issuer: str
    not_after: float


class Authority:
    """Signs what is registered. `clock` is the wall clock in Unix seconds; it may be set while we run.

    One event loop owns it. `upstream` None is a CA that signs itself.
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
        self.touched = Latest(Changes(0))

    async def start(self) -> None:
        """Take up what an earlier process left. An upstream authority that is down does not keep it from starting.

        Raises DatastoreError, KeyManagerError, JournalError, BundleError.
        """
        self._cursor = (await asyncio.to_thread(self.datastore.changes, 0)).cursor
        await self.bundles.load()
        await self._cas.load()
        try:
            await self._turn()
        except UpstreamError as error:
            log.error("there is no CA yet, and nothing is issued: %s", error)

    async def run(self) -> None:
        """Until cancelled: do what is due, each second, and at once after `reconfigure`.

        No sleep is longer, however far away the next event: the wall clock may be set meanwhile.
        """
        while True:
            self._wake.clear()
            try:
                await self._turn()
            except (UpstreamError, DatastoreError, KeyManagerError) as error:
                self._complain(error)
            except Exception:
                log.exception("a turn of the authority failed")
            try:
                await asyncio.wait_for(self._wake.wait(), _TURN_SECONDS)
            except TimeoutError:
                continue

    async def turn(self) -> None:
        """One round of `run`, at once. Raises what `run` would complain of."""
        await self._turn()

    async def close(self) -> None:
        """Let go of the datastore and the upstream authority."""
        if self.upstream is not None:
            await self.upstream.close()
        await asyncio.to_thread(self.datastore.close)

    def reconfigure(self, settings: IdentitySettings) -> None:
        """Apply new settings. The trust domain and the upstream authority cannot change: ValueError.

        A new CA key type or TTL applies to the next CA, a new SVID TTL at once where it is shorter.
        """
        fixed = (self.settings.trust_domain, self.settings.upstream)
        if (settings.trust_domain, settings.upstream) != fixed:
            raise ValueError("the trust domain and the upstream authority of a running server cannot change")
        self.settings, self._cas.settings = settings, settings.ca_settings()
        self._announced.set(self._announcement())
        self._wake.set()

    @property
    def current(self) -> Ca | None:
        """The CA that signs."""
        return self._cas.cas.current

    @property
    def upcoming(self) -> Ca | None:
        """The CA that is prepared."""
        return self._cas.cas.next

    @property
    def retired(self) -> tuple[Retired, ...]:
        """CAs whose SVIDs are being replaced."""
        return self._cas.cas.retired

    async def rotate(self, overlap: float) -> Ca:
        """Have a new CA sign in `overlap` seconds, and all SVIDs replaced then. Raises UpstreamError."""
        async with self._turning:
            ca = await self._cas.rotate(overlap)
            self._announced.set(self._announcement())
        self._wake.set()
        return ca

    def watch(self) -> AsyncIterator[Announcement]:
        """The announcement, then anew at every change."""
        return self._announced.values()

    async def register(self, agent: str, registrations: Sequence[Registration], *, exactly: bool = False) -> None:
        """Make the agent's workloads known; with `exactly`, forget its others. All or none.

        Raises RefusedError, UnavailableError.
        """
        now, trust_domain = self.clock(), self.settings.trust_domain
        wanted = [entry_of(each, agent, trust_domain, now) for each in registrations]
        with _available():
            await asyncio.to_thread(self._store, agent, wanted, exactly)

    async def unregister(self, agent: str, entry_ids: Sequence[str]) -> None:
        """Forget workloads of the agent. Raises UnavailableError."""
        with _available():
            known = await asyncio.to_thread(self.datastore.entries_by_id, entry_ids)
            own = [entry.entry_id for entry in known if entry.parent_id == agent]
            await asyncio.to_thread(self.datastore.delete_entries, own)
        for entry_id in own:
            self.issued.pop(entry_id, None)

    async def entries(self, agent: str, cursor: int) -> tuple[Changes, list[RegistrationEntry]]:
        """What concerns an agent since a cursor (0: everything): the changes, and its entries among them."""
        with _available():
            changes = await asyncio.to_thread(self.datastore.changes, cursor)
            if cursor == 0 or not changes.complete:
                return changes, await asyncio.to_thread(self.datastore.entries, agent)
            found = await asyncio.to_thread(self.datastore.entries_by_id, changes.entries)
        return changes, [entry for entry in found if entry.parent_id == agent]

    async def sign(self, agent: str, requests: Sequence[SvidRequest]) -> list[SvidAnswer]:
        """SVIDs for workloads of the agent. Refusals are logged. Raises UnavailableError, RefusedError."""
        if len(requests) > MAX_BATCH:
            raise RefusedError(f"{len(requests)} requests at once; the limit is {MAX_BATCH}")
        await self._ensure_ca()
        with _available():
            found = await asyncio.to_thread(self.datastore.entries_by_id, [each.entry_id for each in requests])
        entries = {entry.entry_id: entry for entry in found}
        return await asyncio.to_thread(self._sign_all, agent, requests, entries)

    async def sign_jwt(self, agent: str, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """A JWT-SVID for a workload of the agent. Raises UnavailableError, RefusedError."""
        check_audience(audience)
        await self._ensure_ca()
        with _available():
            found = await asyncio.to_thread(self.datastore.entries_by_id, [entry_id])
        entry = next(iter(found), None)
        if entry is None or entry.parent_id != agent:
            raise self._refused(agent, entry_id, "it is not registered for this agent")
        return self.issue_jwt(SpiffeId.parse(entry.spiffe_id), audience, entry.jwt_ttl or self.settings.jwt_ttl)

    def issue_jwt(self, spiffe_id: SpiffeId, audience: Sequence[str], ttl: int) -> JwtSvid:
        """A JWT-SVID, whoever it is for. Raises UnavailableError."""
        ca, now = self._signing_ca(), self.clock()
        expires_at = int(min(now + ttl, ca.not_after))
        token = jwtsvid.sign(ca.jwt_key, key_id_of(ca.jwt_key), spiffe_id, audience, int(now), expires_at - int(now))
        return JwtSvid(spiffe_id, token, expires_at)

    def issue(
        self, public_key: PublicKey, spiffe_id: SpiffeId, dns_names: Sequence[str], ttl: int
    ) -> tuple[x509.Certificate, ...]:
        """An SVID, whoever it is for: its chain, leaf first. Raises SvidError, UnavailableError."""
        ca, now = self._signing_ca(), self.clock()
        serial = x509.random_serial_number()
        leaf = issue_svid(ca.signer, public_key, spiffe_id, dns_names, now - CLOCK_SKEW, now + ttl, serial)
        return (leaf, *ca.chain)

    async def attest_agent(self, attested: Attested, kind: str, csr: bytes) -> tuple[x509.Certificate, ...]:
        """The first SVID of an agent that proved where it runs; what an earlier one of its name held is void.

        Raises RefusedError, UnavailableError.
        """
        with _available():
            known = await asyncio.to_thread(self.datastore.node, attested.agent_id)
        if known is not None and known.banned:
            raise self._refused(attested.agent_id, "", "it is banned")
        node = AttestedNode(attested.agent_id, kind, "", 0, attested.registrar)
        return await self.issue_agent(node, csr)

    async def issue_agent(self, node: AttestedNode, csr: bytes) -> tuple[x509.Certificate, ...]:
        """The next SVID of an agent. Raises RefusedError, UnavailableError."""
        spiffe_id = SpiffeId.parse(node.spiffe_id)
        await self._ensure_ca()
        chain = self.issue(public_key_of(csr, spiffe_id, ()), spiffe_id, (), self.settings.agent_ttl)
        leaf = chain[0]
        # The one before stays good until the new one is used: its answer may be lost.
        serials = [*node.serial.split()[-1:], str(leaf.serial_number)]
        not_after = int(leaf.not_valid_after_utc.timestamp())
        known = AttestedNode(node.spiffe_id, node.attestation, " ".join(serials), not_after, node.registrar)
        with _available():
            await asyncio.to_thread(self.datastore.put_node, known)
        return chain

    async def admit(self, spiffe_id: SpiffeId, serial: int) -> AttestedNode:
        """The agent that presents this SVID. Raises RefusedError unless it is attested and this is its newest SVID."""
        with _available():
            node = await asyncio.to_thread(self.datastore.node, str(spiffe_id)) if is_agent(spiffe_id) else None
        if node is None:
            raise self._refused(str(spiffe_id), "", "it is not an attested agent")
        if node.banned:
            raise self._refused(str(spiffe_id), "", "it is banned")
        serials = node.serial.split()
        if str(serial) not in serials:
            raise self._refused(str(spiffe_id), "", "its SVID is not the one that this agent was given last")
        if len(serials) > 1 and str(serial) == serials[-1]:
            node = AttestedNode(node.spiffe_id, node.attestation, serials[-1], node.not_after, node.registrar)
            with _available():
                await asyncio.to_thread(self.datastore.put_node, node)
        return node

    def _sign_all(
        self, agent: str, requests: Iterable[SvidRequest], entries: dict[str, RegistrationEntry]
    ) -> list[SvidAnswer]:
        answers = []
        for request in requests:
            try:
                entry = entries.get(request.entry_id)
                if entry is None or entry.parent_id != agent:
                    raise RefusedError("it is not registered for this agent")
                answers.append(self._sign_one(entry, request.csr))
            except (RefusedError, SvidError) as error:
                log.warning("%s is refused an SVID for entry %s: %s", agent, request.entry_id[:200], error)
                answers.append(SvidAnswer(request.entry_id, refused=str(error)))
        return answers

    def _sign_one(self, entry: RegistrationEntry, csr: bytes) -> SvidAnswer:
        spiffe_id = SpiffeId.parse(entry.spiffe_id)
        public_key = public_key_of(csr, spiffe_id, entry.dns_names)
        chain = self.issue(public_key, spiffe_id, entry.dns_names, entry.x509_ttl or self.settings.svid_ttl)
        leaf = chain[0]
        self.issued[entry.entry_id] = Issued(
            entry.spiffe_id, leaf.serial_number, issuer_id(leaf), leaf.not_valid_after_utc.timestamp()
        )
        self.issued.move_to_end(entry.entry_id)
        if len(self.issued) > _MAX_ISSUED:
            self.issued.popitem(last=False)
        return SvidAnswer(entry.entry_id, tuple(der(certificate) for certificate in chain))

    def _store(self, agent: str, wanted: list[RegistrationEntry], exactly: bool) -> None:
        """Write what differs. Raises RefusedError for a name that is another agent's."""
        names = [entry.entry_id for entry in wanted]
        known = {entry.entry_id: entry for entry in self.datastore.entries_by_id(names)}
        for entry in known.values():
            if entry.parent_id != agent:
                raise self._refused(agent, entry.entry_id, "this name is another agent's")
        new = [entry for entry in wanted if not _same(entry, known.get(entry.entry_id))]
        if new:
            self.datastore.put_entries(new)
        if exactly:
            gone = {entry.entry_id for entry in self.datastore.entries(agent)} - set(names)
            self.datastore.delete_entries(gone)

    async def _ensure_ca(self) -> None:
        """The clock may have been set, and `run` not come round to it yet."""
        if not usable(self.current, self.settings.ca_settings(), self.clock()):
            try:
                await self._turn()
            except (UpstreamError, DatastoreError, KeyManagerError) as error:
                raise UnavailableError(f"there is no valid CA to issue from: {error}") from None

    def _signing_ca(self) -> Ca:
        current = self.current
        if current is None or not usable(current, self.settings.ca_settings(), self.clock()):
            raise UnavailableError("there is no valid CA to issue from")
        return current

    async def _turn(self) -> None:
        async with self._turning:
            try:
                await self._follow_datastore()
                self.bundles.prune()
                await self._cas.turn()
            finally:
                self._announced.set(self._announcement())

    async def _follow_datastore(self) -> None:
        """Take in what others wrote."""
        try:
            changes = await asyncio.to_thread(self.datastore.changes, self._cursor)
            if not changes.complete:
                await self.bundles.load()
            elif changes.bundles:
                await self.bundles.follow(changes.bundles)
        except DatastoreError as error:
            self._complain(error)  # what is in memory serves on
            return
        if changes.cursor != self._cursor:
            self._cursor = changes.cursor
            self.touched.set(changes)

    def _announcement(self) -> Announcement:
        bundles: dict[str, TrustBundle] = {**self.bundles.federated, self.settings.trust_domain: self.bundles.own}
        retired = frozenset(each.ca_id for each in self._cas.cas.retired)
        return Announcement(self.settings.trust_domain, bundles, self.settings.svid_ttl, retired)

    def _refused(self, agent: str, entry_id: str, reason: str) -> RefusedError:
        what = f" for entry {entry_id[:200]}" if entry_id else ""
        log.warning("%s is refused%s: %s", agent, what, reason)
        return RefusedError(f"{entry_id[:200]}: {reason}" if entry_id else reason)

    def _complain(self, error: Exception) -> None:
        now = self.clock()
        if abs(now - self._complained_at) >= _COMPLAINT_INTERVAL:
            self._complained_at = now
            log.error("%s", error)


def public_key_of(csr: bytes, spiffe_id: SpiffeId, dns_names: Sequence[str]) -> PublicKey:
    """The key of a CSR that its sender proves to hold. Raises RefusedError, also when it asks for other names."""
    if len(csr) > _MAX_CSR:
        raise RefusedError(f"csr: {len(csr)} bytes; the limit is {_MAX_CSR}")
    try:
        request = x509.load_der_x509_csr(csr)
        valid = request.is_signature_valid
        public_key = request.public_key()
        key_type_of(public_key)
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    except Exception as error:  # the parser has many
        raise RefusedError(f"csr: {error or type(error).__name__}") from None
    if not valid:
        raise RefusedError("csr: its signature is not of its key")
    allowed = {x509.UniformResourceIdentifier(str(spiffe_id)), *(x509.DNSName(name) for name in dns_names)}
    for name in names:
        if name not in allowed:
            raise RefusedError(f"csr: it asks for the name {str(name.value)[:200]!r}, which is not registered")
    assert isinstance(public_key, PublicKey)  # noqa: S101 - what key_type_of established
    return public_key


def check_audience(audience: Sequence[str]) -> None:
    """Raise RefusedError unless it is a sound audience of a JWT-SVID."""
    if not audience or len(audience) > _MAX_AUDIENCE or not all(0 < len(each) <= 1000 for each in audience):
        raise RefusedError(f"audience: 1 to {_MAX_AUDIENCE} names of at most 1000 characters")


def issuer_id(certificate: x509.Certificate) -> str:
    """The key identifier of a certificate's issuer, hexadecimal."""
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return "" if found is None else found.hex()


def der(certificate: x509.Certificate) -> bytes:
    """The certificate as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


class _available:  # noqa: N801 - reads as a statement
    """Says of a datastore that fails that the server is unavailable."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DatastoreError):
            raise UnavailableError(str(error)) from None


def _same(entry: RegistrationEntry, known: RegistrationEntry | None) -> bool:
    return known is not None and replace(known, created_at=0) == replace(entry, created_at=0)


def _refresh_hint(settings: IdentitySettings) -> int:
    """How often, in seconds, others should look for a changed bundle: well within the time it is published ahead."""
    return max(1, min(300, settings.ca_ttl // 60))
