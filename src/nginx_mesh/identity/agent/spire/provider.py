"""The identities of the workloads on one machine, from SPIRE: entries at its server, SVIDs from its agent.

To SPIRE's agent we are one workload, entitled to the identity of every service account that runs here, and we pass on
to the pods what it gives us. SPIRE's agent makes the private keys.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.agent.provider import OnUpdate
from nginx_mesh.identity.agent.source import ProviderSource
from nginx_mesh.identity.common.keys import to_pem
from nginx_mesh.identity.common.latest import Latest
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.identity.common.workload import JwtRefusedError, JwtSvid, WorkloadContext, X509Svid
from nginx_mesh.identity.common.x509svid import authority_key_id, certificates_pem, check_dns_names, subject_key_id
from nginx_mesh.protocol.state import Identity

from .channel import ServerChannel
from .entries import EntryClient, SpireError
from .plan import EntrySettings, plan, wanted
from .workload import WorkloadClient

log = logging.getLogger(__name__)

LINGER_SECONDS = 60.0
"""For how long an entry stays that nobody needs: pods come back after a start, and follow each other in a rollout."""

_RESYNC_SECONDS = 300.0
_FIRST_RETRY = 0.2
_SLOWEST_RETRY = 5.0
_REFUSED_RETRY = 15.0


@dataclass(frozen=True)
class _Workload:
    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]


class SpireProvider:
    """An IdentityProvider whose identities come from SPIRE.

    Workloads of one SPIFFE ID share an entry and its SVID. They keep what SPIRE gave while its server or agent does not
    answer, and lose what the agent takes away. `linger` and `resync` are seconds.
    """

    def __init__(
        self,
        settings: EntrySettings,
        agent_socket: Path,
        server: ServerChannel,
        *,
        linger: float = LINGER_SECONDS,
        resync: float = _RESYNC_SECONDS,
    ) -> None:
        self._settings = settings
        self._server = server
        self._linger, self._resync = linger, resync
        self._agent = WorkloadClient(agent_socket, self._taken)
        self._workloads: dict[str, _Workload] = {}
        self._context = WorkloadContext((), {})
        self._identities: dict[SpiffeId, Identity] = {}
        self._reported: dict[str, Identity] = {}
        self._surplus: dict[str, float] = {}
        self._complaints: dict[str, str] = {}
        self._server_problem = ""
        self._stale = asyncio.Event()
        self._changes = Latest(0)

    def reconfigure(self, svid_ttl: int) -> None:
        """Have SVIDs live for `svid_ttl` seconds."""
        self._settings = replace(self._settings, svid_ttl=svid_ttl)
        self._stale.set()

    def register(self, workload: str, spiffe_id: SpiffeId, dns_names: Sequence[str] = ()) -> None:
        """See IdentityProvider."""
        check_dns_names(dns_names)
        wants = _Workload(spiffe_id, tuple(dict.fromkeys(dns_names)))
        if self._workloads.get(workload) != wants:
            self._workloads[workload] = wants
            self._stale.set()
            self._changed()

    def unregister(self, workload: str) -> None:
        """See IdentityProvider."""
        if self._workloads.pop(workload, None) is not None:
            self._reported.pop(workload, None)
            self._stale.set()
            self._changed()

    def identity(self, workload: str) -> Identity | None:
        """See IdentityProvider."""
        known = self._workloads.get(workload)
        return None if known is None else self._identities.get(known.spiffe_id)

    def svid_status(self, workload: str) -> SvidStatus | None:
        """See IdentityProvider. SPIRE does not tell when it renews."""
        known = self._workloads.get(workload)
        if known is None:
            return None
        svid = self._svids().get(known.spiffe_id)
        if svid is None:
            return SvidStatus(str(known.spiffe_id), known.dns_names)
        leaf, own = svid.chain[0], self._context.bundles[known.spiffe_id.trust_domain]
        return SvidStatus(
            str(known.spiffe_id),
            known.dns_names,
            f"{leaf.serial_number:x}",
            authority_key_id(leaf),
            leaf.not_valid_before_utc.timestamp(),
            leaf.not_valid_after_utc.timestamp(),
            bundle=tuple(sorted(subject_key_id(root) for root in own.x509_authorities)),
        )

    @property
    def problem(self) -> str:
        """See IdentityProvider."""
        return self._agent.problem or self._server_problem

    def source(self, workload: str) -> ProviderSource:
        """See IdentityProvider."""
        return ProviderSource(self, workload)

    def node_source(self) -> ProviderSource:
        """See IdentityProvider."""
        return ProviderSource(self, None)

    async def run(self, on_update: OnUpdate) -> None:
        """See IdentityProvider. An identity that is taken away is reported as None."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._agent.run())
            tasks.create_task(self._keep_entries())
            async for _ in self._changes.values():
                self._report(on_update)

    def context(self, workload: str | None) -> WorkloadContext | None:
        """See ContextProvider."""
        chosen = self._workloads.values() if workload is None else filter(None, [self._workloads.get(workload)])
        ids = {known.spiffe_id for known in chosen}
        svids = tuple(svid for svid in self._context.svids if svid.spiffe_id in ids)
        return WorkloadContext(svids, self._context.bundles) if svids else None

    async def jwt_svids(
        self, workload: str | None, audience: Sequence[str], spiffe_id: SpiffeId | None
    ) -> list[JwtSvid]:
        """See ContextProvider. SPIRE's agent issues the tokens."""
        context = self.context(workload)
        ids = [svid.spiffe_id for svid in context.svids if spiffe_id in (None, svid.spiffe_id)] if context else []
        if not ids:
            raise JwtRefusedError("no identity issued")
        return [token for entitled in ids for token in await self._agent.jwt_svids(audience, entitled)]

    def changes(self, _: str | None) -> AsyncGenerator[int, None]:
        """See ContextProvider. Everybody hears of every change."""
        return self._changes.values()

    def _svids(self) -> Mapping[SpiffeId, X509Svid]:
        return {svid.spiffe_id: svid for svid in self._context.svids}

    def _changed(self) -> None:
        self._changes.set(self._changes.value + 1)

    def _taken(self, context: WorkloadContext) -> None:
        """Take in what SPIRE's agent gives us now."""
        pems = {name: certificates_pem(bundle.x509_authorities) for name, bundle in context.bundles.items()}
        self._context = context
        self._server.use(context)
        before, self._identities = (
            self._identities,
            {
                svid.spiffe_id: Identity(
                    spiffe_id=str(svid.spiffe_id),
                    svid=certificates_pem(svid.chain),
                    key=to_pem(svid.key),
                    bundle=pems[svid.spiffe_id.trust_domain],
                    federated={name: pem for name, pem in pems.items() if name != svid.spiffe_id.trust_domain},
                )
                for svid in context.svids
            },
        )
        lost = before.keys() - self._identities.keys()
        if needed := lost & {known.spiffe_id for known in self._workloads.values()}:
            log.warning("SPIRE no longer grants %s", ", ".join(sorted(map(str, needed))))
            self._stale.set()  # perhaps our entries were removed
        self._changed()

    def _report(self, on_update: OnUpdate) -> None:
        for name in list(self._workloads):
            before, now = self._reported.get(name), self.identity(name)
            if before and now and (before.bundle, before.federated) != (now.bundle, now.federated):
                self._tell(on_update, name, msgspec.structs.replace(before, bundle=now.bundle, federated=now.federated))
        for name in list(self._workloads):
            now = self.identity(name)
            if now != self._reported.get(name):
                self._tell(on_update, name, now)

    def _tell(self, on_update: OnUpdate, name: str, identity: Identity | None) -> None:
        if identity is None:
            del self._reported[name]
        else:
            self._reported[name] = identity
        try:
            on_update(name, identity)
        except Exception:
            log.exception("workload %s: its new identity was not taken", name)

    async def _keep_entries(self) -> None:
        """Keep our entries at SPIRE's server at those that are needed, until cancelled."""
        retry, away = _FIRST_RETRY, False
        while True:
            self._stale.clear()
            try:
                pause = await self._reconcile()
            except Exception as error:
                if not isinstance(error, SpireError):
                    log.exception("entries could not be kept")
                elif not away:
                    log.warning("SPIRE server: %s; trying again, identities stay as they are", error)
                away, self._server_problem = True, f"SPIRE server: {error}"
                await asyncio.sleep(retry)
                retry = min(2 * retry, _SLOWEST_RETRY)
                continue
            if away:
                log.info("SPIRE server: answers again")
            retry, away, self._server_problem = _FIRST_RETRY, False, ""
            with suppress(TimeoutError):
                # Not wait_for: that of Python 3.11 may lose a cancellation.
                async with asyncio.timeout(pause):
                    await self._stale.wait()

    async def _reconcile(self) -> float:
        """Change the server's entries where need be. Returns the seconds until the next look. Raises SpireError."""
        settings = self._settings
        entries = wanted(settings, ((known.spiffe_id, known.dns_names) for known in self._workloads.values()))
        async with self._server.open() as channel:
            client = EntryClient(channel)
            todo = plan(settings, entries, await client.of_parent(settings.parent_id))
            now = time.monotonic()
            self._surplus = {name: self._surplus.get(name, now) for name in todo.surplus}
            over = [name for name, since in self._surplus.items() if now - since >= self._linger]
            refused = await client.create(todo.create) | await client.update(todo.update) | await client.delete(over)
        self._complain(
            {name: f"refused by the SPIRE server: {reason}" for name, reason in refused.items()}
            | {
                entry.entry_id: f"was made by somebody else for {entry.spiffe_id}; used as it is"
                for entry in todo.foreign
            }
        )
        for name in set(over) - refused.keys():
            del self._surplus[name]
        pauses = [since + self._linger - now for since in self._surplus.values()]
        return max(0.0, min([self._resync, *pauses, *([_REFUSED_RETRY] if refused else [])]))

    def _complain(self, complaints: dict[str, str]) -> None:
        """Log the complaints that are new since the last time."""
        for name, complaint in complaints.items():
            if self._complaints.get(name) != complaint:
                log.warning("entry %s %s", name, complaint)
        self._complaints = complaints
