"""The identity server's API for agents, whose messages are in common/wire.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography import x509
from prometheus_client import Counter, Gauge

from nginx_mesh.identity.common import wire
from nginx_mesh.identity.common.client import Announcement, RefusedError, UnavailableError
from nginx_mesh.identity.common.tls import peer_id
from nginx_mesh.identity.common.x509svid import certificate_der
from nginx_mesh.observe.responses import json_response

from .admission import Admission
from .attestation import NodeAttestor
from .authority import Authority
from .datastore.base import AttestedNode

log = logging.getLogger(__name__)

_NODE: web.RequestKey[AttestedNode] = web.RequestKey("node", AttestedNode)

_connected = Gauge("nginx_mesh_agents_connected", "Agents that listen to what this server announces.")
_attestations = Counter("nginx_mesh_agent_attestations_total", "Attempts of agents to be admitted.", ["result"])
for _result in ("admitted", "refused"):
    _attestations.labels(_result)


class NodeApi:
    """An aiohttp application that serves an Authority to agents."""

    def __init__(self, authority: Authority, attestors: Mapping[str, NodeAttestor]) -> None:
        self._authority = authority
        self._admission = Admission(authority)
        self._attestors = attestors
        self._watches: set[asyncio.Task[object]] = set()
        self.app = web.Application(client_max_size=wire.MAX_BODY, middlewares=[self._guard])
        self.app.router.add_post("/v1/attest", self._attest)
        self.app.router.add_post("/v1/renew", self._renew)
        self.app.router.add_get("/v1/watch", self._watch)
        self.app.router.add_put("/v1/entries", self._register)
        self.app.router.add_post("/v1/entries", self._register)
        self.app.router.add_post("/v1/entries/delete", self._unregister)
        self.app.router.add_get("/v1/entries", self._entries)
        self.app.router.add_post("/v1/svids", self._sign)
        self.app.router.add_post("/v1/jwt", self._sign_jwt)
        self.app.on_shutdown.append(self._shut_down)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Admit attested agents only; tell the caller of every error, and log every refusal."""
        try:
            if request.path != "/v1/attest":
                request[_NODE] = await self._admit(request)
            return await handler(request)
        except UnavailableError as error:
            return json_response(wire.Failed(str(error)), 503)
        except wire.MalformedError as error:
            return _refusal(request, 400, str(error))
        except RefusedError as error:
            return _refusal(request, 403, str(error))
        except web.HTTPException as error:
            return _refusal(request, error.status, error.text or error.reason)
        except ConnectionError:
            raise  # the agent went away
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return json_response(wire.Failed("an internal error; the server's log tells more"), 500)

    async def _admit(self, request: web.Request) -> AttestedNode:
        spiffe_id = peer_id(request.transport)
        if spiffe_id is None:
            raise web.HTTPUnauthorized(text="an SVID of an agent is needed")
        proved = request.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            return await self._admission.admit(spiffe_id, x509.load_der_x509_certificate(proved).serial_number)
        except RefusedError as error:
            raise web.HTTPUnauthorized(text=str(error)) from None

    async def _attest(self, request: web.Request) -> web.StreamResponse:
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > wire.MAX_EVIDENCE:  # anybody can send some
                raise web.HTTPRequestEntityTooLarge(wire.MAX_EVIDENCE, len(body))
        evidence = wire.decode(wire.Evidence, bytes(body))
        attestor = self._attestors.get(evidence.attestation)
        if attestor is None:
            known = ", ".join(sorted(self._attestors)) or "none"
            raise RefusedError(f"attestation {evidence.attestation[:40]!r} is not taken here; known: {known}")
        await self._authority.ensure_ca()  # evidence that is good once must not be spent on nothing
        with _attestations.labels("refused").count_exceptions(RefusedError):
            attested = await attestor.attest(evidence.payload)
            chain = await self._admission.attest(attested, evidence.attestation, evidence.csr)
        _attestations.labels("admitted").inc()
        return self._issued(attested.agent_id, chain, attested.registrar)

    async def _renew(self, request: web.Request) -> web.StreamResponse:
        node = request[_NODE]
        chain = await self._admission.renew(node, wire.decode(wire.Csr, await request.read()).csr)
        return self._issued(node.spiffe_id, chain, node.registrar)

    def _issued(self, agent: str, chain: tuple[x509.Certificate, ...], registrar: bool) -> web.Response:
        log.info("%s has an SVID until %s", agent, chain[0].not_valid_after_utc)
        return json_response(wire.AgentSvid([certificate_der(certificate) for certificate in chain], registrar))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        self._watches.add(task)
        _connected.inc()
        announcements = self._authority.watch()
        pending: asyncio.Future[Announcement] = asyncio.ensure_future(anext(announcements))
        try:
            while True:
                await asyncio.wait((pending,), timeout=wire.HEARTBEAT_SECONDS)
                line = b""
                if pending.done():
                    line = wire.encode(wire.announced(pending.result()))
                    pending = asyncio.ensure_future(anext(announcements))
                await response.write(line + b"\n")
        finally:
            self._watches.discard(task)
            _connected.dec()
            pending.cancel()

    async def _register(self, request: web.Request) -> web.StreamResponse:
        node = _registrar(request)
        wanted = wire.decode(wire.Registrations, await request.read()).registrations
        await self._authority.register(node.spiffe_id, wanted, exactly=request.method == "PUT")
        return json_response({})

    async def _unregister(self, request: web.Request) -> web.StreamResponse:
        entry_ids = wire.decode(wire.EntryIds, await request.read()).entry_ids
        await self._authority.unregister(_registrar(request).spiffe_id, entry_ids)
        return json_response({})

    async def _entries(self, request: web.Request) -> web.StreamResponse:
        cursor = request.query.get("cursor", "0")
        if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
            raise web.HTTPBadRequest(text="cursor: not a number")
        changes, entries = await self._authority.entries(request[_NODE].spiffe_id, int(cursor))
        complete = changes.complete and cursor != "0"
        return json_response(wire.Entries(changes.cursor, complete, list(changes.entries) if complete else [], entries))

    async def _sign(self, request: web.Request) -> web.StreamResponse:
        requests = wire.decode(wire.SvidRequests, await request.read()).requests
        return json_response(wire.SvidAnswers(await self._authority.sign(request[_NODE].spiffe_id, requests)))

    async def _sign_jwt(self, request: web.Request) -> web.StreamResponse:
        wanted = wire.decode(wire.JwtRequest, await request.read())
        svid = await self._authority.sign_jwt(request[_NODE].spiffe_id, wanted.entry_id, wanted.audience)
        return json_response(wire.Jwt(str(svid.spiffe_id), svid.token, svid.expires_at))

    async def _shut_down(self, _: web.Application) -> None:
        for task in self._watches:
            task.cancel()


def _registrar(request: web.Request) -> AttestedNode:
    node = request[_NODE]
    if not node.registrar:
        raise RefusedError("this agent may not register workloads")
    return node


def _refusal(request: web.Request, status: int, reason: str) -> web.Response:
    agent = request.get(_NODE)
    who = request.remote or "somebody" if agent is None else agent.spiffe_id
    log.warning("%s is refused %s %.200r: %s", who, request.method, request.path, reason)
    return json_response(wire.Failed(reason), status)
