"""What the mesh sees of SPIRE, for machines that have none: its Entry API as published, and our own Workload API."""

import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from nginx_mesh.api.spiffe import SpiffeId
from nginx_mesh.identity.agent.spire import entry_pb2 as pb
from nginx_mesh.identity.agent.spire.entries import SERVICE, Selector
from nginx_mesh.identity.agent.workloadapi.server import WorkloadApiServer
from nginx_mesh.identity.common import jwtsvid
from nginx_mesh.identity.common.bundle import TrustBundle
from nginx_mesh.identity.common.latest import Latest
from nginx_mesh.identity.common.workload import JwtRefusedError, JwtSvid, WorkloadContext, X509Svid
from tests.unit.identity.domains import Domain

OK, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, INTERNAL = 0, 3, 5, 6, 13
METHODS: dict[str, Any] = {
    "ListEntries": pb.ListEntriesRequest,
    "BatchCreateEntry": pb.BatchCreateEntryRequest,
    "BatchUpdateEntry": pb.BatchUpdateEntryRequest,
    "BatchDeleteEntry": pb.BatchDeleteEntryRequest,
}
FIELDS = [field.name for field in pb.EntryMask.DESCRIPTOR.fields]


class EntryServer:
    """The Entry API as SPIRE's documentation and .proto files have it. `page` is the most that it lists at once."""

    def __init__(self, trust_domain: str, *, page: int = 2) -> None:
        self.trust_domain, self.page = trust_domain, page
        self.entries: dict[str, Any] = {}
        self.calls: list[str] = []
        self.changed = Latest(0)

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(
                self._counted(name), request.FromString, lambda answer: answer.SerializeToString()
            )
            for name, request in METHODS.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _counted(self, name: str) -> Callable[[Any, Any], Any]:
        async def call(request: Any, _context: Any) -> Any:
            self.calls.append(name)
            answer = getattr(self, name)(request)
            self.changed.set(self.changed.value + 1)
            return answer

        return call

    def ListEntries(self, request: Any) -> Any:  # noqa: N802
        parent = request.filter.by_parent_id
        found = [e for _, e in sorted(self.entries.items()) if e.parent_id == parent or not parent.path]
        size = min(request.page_size or self.page, self.page)
        rest = [e for e in found if e.id > request.page_token]
        more = rest[size - 1].id if len(rest) > size else ""
        return pb.ListEntriesResponse(
            entries=[masked(e, request.output_mask) for e in rest[:size]], next_page_token=more
        )

    def BatchCreateEntry(self, request: Any) -> Any:  # noqa: N802
        return pb.BatchCreateEntryResponse(results=[self._create(entry) for entry in request.entries])

    def _create(self, entry: Any) -> Any:
        result = pb.BatchCreateEntryResponse.Result
        if (reason := self._invalid(entry)) is not None:
            return result(status=pb.Status(code=INVALID_ARGUMENT, message=reason))
        for other in self.entries.values():
            if similar(other) == similar(entry):
                return result(
                    status=pb.Status(code=ALREADY_EXISTS, message="similar entry already exists"), entry=other
                )
        if entry.id in self.entries:
            return result(status=pb.Status(code=INTERNAL, message="UNIQUE constraint failed"))
        self.entries[entry.id] = entry
        return result(status=pb.Status(code=OK), entry=entry)

    def BatchUpdateEntry(self, request: Any) -> Any:  # noqa: N802
        results = []
        for entry in request.entries:
            known = self.entries.get(entry.id)
            if known is None:
                status = pb.Status(code=NOT_FOUND, message="record not found")
            elif (reason := self._invalid(entry)) is not None:
                status = pb.Status(code=INVALID_ARGUMENT, message=reason)
            else:
                changed = masked(entry, request.input_mask)
                for name in FIELDS:
                    if not getattr(request.input_mask, name):
                        changed.MergeFrom(masked(known, pb.EntryMask(**{name: True})))
                self.entries[entry.id] = changed
                status = pb.Status(code=OK)
            results.append(pb.BatchUpdateEntryResponse.Result(status=status))
        return pb.BatchUpdateEntryResponse(results=results)

    def BatchDeleteEntry(self, request: Any) -> Any:  # noqa: N802
        results = []
        for entry_id in request.ids:
            code = OK if self.entries.pop(entry_id, None) else NOT_FOUND
            results.append(pb.BatchDeleteEntryResponse.Result(status=pb.Status(code=code), id=entry_id))
        return pb.BatchDeleteEntryResponse(results=results)

    def _invalid(self, entry: Any) -> str | None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", entry.id):
            return "entry ID contains invalid characters"
        for named in (entry.spiffe_id, entry.parent_id):
            if named.trust_domain != self.trust_domain:
                return f'"spiffe://{named.trust_domain}{named.path}" is not a member of trust domain'
        if not entry.selectors:
            return "selector list is empty"
        for name in entry.dns_names:
            if not re.fullmatch(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", name):
                return "invalid DNS name"
        return None


def similar(entry: Any) -> Any:
    return (
        entry.spiffe_id.path,
        entry.parent_id.path,
        frozenset((selector.type, selector.value) for selector in entry.selectors),
    )


def masked(entry: Any, mask: Any) -> Any:
    kept = pb.Entry()
    kept.CopyFrom(entry)
    for name in FIELDS:
        if not getattr(mask, name):
            kept.ClearField(name)
    return kept


class StandIn:
    """The same controls as those of real SPIRE in tests/interop/spire.py."""

    short_ttl = 3

    def __init__(self, directory: Path, trust_domain: str) -> None:
        self.domain = Domain(trust_domain)
        self.trust_domain = trust_domain
        self.server_socket, self.agent_socket = directory / "server.sock", directory / "agent.sock"
        self.parent_id = SpiffeId(trust_domain, "/spire/agent/standin/1")
        self.selectors = frozenset([Selector("unix", "uid:0"), Selector("unix", "path:/usr/bin/mesh")])
        self.federated: dict[str, TrustBundle] = {}
        self.api = EntryServer(trust_domain)
        self._issued: dict[str, tuple[Any, float, X509Svid]] = {}
        self._server: grpc.aio.Server | None = None
        self._agent: WorkloadApiServer | None = None

    async def start_server(self) -> None:
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self.api.handlers(),))
        self._server.add_insecure_port(f"unix:{self.server_socket}")
        await self._server.start()

    async def stop_server(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def start_agent(self) -> None:
        self._agent = WorkloadApiServer(self, self.agent_socket)
        await self._agent.start()

    async def stop_agent(self) -> None:
        if self._agent is not None:
            await self._agent.close()

    async def entries(self) -> dict[str, dict[str, Any]]:
        return {
            name: {"spiffe_id": {"path": e.spiffe_id.path}, "dns_names": list(e.dns_names)}
            for name, e in self.api.entries.items()
        }

    async def trust(self, bundle: TrustBundle) -> None:
        self.federated[bundle.trust_domain] = bundle

    async def rotate_ca(self) -> None:
        self.domain.rotate()
        self._issued.clear()
        self.api.changed.set(self.api.changed.value + 1)

    async def updates(self) -> AsyncIterator[WorkloadContext | None]:
        """What we are entitled to: a WorkloadSource, as the agent's."""
        renewal = asyncio.create_task(self._renew())
        try:
            async for _ in self.api.changed.values():
                svids = tuple(self._svid(entry) for entry in self._ours())
                named = {name for entry in self._ours() for name in entry.federates_with}
                partners = {name: bundle for name, bundle in self.federated.items() if name in named}
                bundles = {self.domain.name: self.domain.bundle()} | partners
                yield WorkloadContext(svids, bundles) if svids else None
        finally:
            renewal.cancel()

    async def jwt_svids(self, audience: Sequence[str], spiffe_id: SpiffeId | None) -> list[JwtSvid]:
        ids = [SpiffeId(e.spiffe_id.trust_domain, e.spiffe_id.path) for e in self._ours()]
        if spiffe_id is not None and spiffe_id not in ids:
            raise JwtRefusedError(f"not entitled to {spiffe_id}")
        now, domain = time.time(), self.domain
        return [
            JwtSvid(i, jwtsvid.sign(domain.jwt_key, domain.jwt_key_id, i, audience, now, 300), int(now) + 300)
            for i in ids
            if spiffe_id in (None, i)
        ]

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.api.changed.set(self.api.changed.value + 1)

    def _ours(self) -> list[Any]:
        has = {(selector.type, selector.value) for selector in self.selectors}
        parent = (self.parent_id.trust_domain, self.parent_id.path)
        return [
            entry
            for entry in self.api.entries.values()
            if {(selector.type, selector.value) for selector in entry.selectors} <= has
            and (entry.parent_id.trust_domain, entry.parent_id.path) == parent
        ]

    def _svid(self, entry: Any) -> X509Svid:
        """The entry's SVID, made anew when the entry changed or half of its life is over."""
        known = self._issued.get(entry.id)
        if known is None or known[0] != entry or time.time() > known[1]:
            ttl = entry.x509_svid_ttl or 3600
            svid = self.domain.svid(entry.spiffe_id.path, until=ttl, dns_names=list(entry.dns_names))
            known = self._issued[entry.id] = entry, time.time() + ttl / 2, svid
        return known[2]


@asynccontextmanager
async def stand_in(trust_domain: str = "spire.test") -> AsyncIterator[StandIn]:
    with tempfile.TemporaryDirectory(prefix="spire-") as directory:
        running = StandIn(Path(directory), trust_domain)
        try:
            await running.start_server()
            await running.start_agent()
            yield running
        finally:
            await running.stop_agent()
            await running.stop_server()
