"""What operators may do with an authority: JSON over HTTP, on a socket that only root can open.

| request | |
|---|---|
| GET `/` | the server, its CAs, its registrations with the SVIDs that they have |
| GET `/bundles` | every bundle, as a SPIFFE document and as PEM |
| POST `/mint` | `Mint` → an X.509-SVID for a CSR, whoever it is for |
| POST `/mint-jwt` | `MintJwt` → a JWT-SVID, whoever it is for |
| POST `/rotate` | `Rotate`: a new CA, soon |
| POST `/tokens` | `NewToken` → a join token |
| GET `/agents`, PATCH, DELETE `/agents/NAME` | attested agents; `Ban`; forget one and its registrations |
| GET `/federation`, PUT, DELETE `/federation/TRUST-DOMAIN` | relationships with other trust domains |

Errors are `{"message": reason}`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from aiohttp import web
from cryptography.x509.oid import NameOID

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError
from nginx_mesh.identity.common import bundle as bundles
from nginx_mesh.identity.common.client import RefusedError, UnavailableError
from nginx_mesh.identity.common.wire import Message
from nginx_mesh.identity.common.x509svid import SvidError, certificate_pem
from nginx_mesh.observe.responses import json_response

from .attestation import JoinTokens
from .authority import Authority, check_audience, issuer_id, public_key_of
from .ca import Ca, key_identifier
from .datastore.base import AttestedNode, DatastoreError, FederationRelationship
from .federation.client import FederationError, check_relationship
from .registrations import K8S_PREFIX, agent_id
from .upstream.base import UpstreamError

log = logging.getLogger(__name__)

MAX_MINT_TTL = 365 * 24 * 3600
MAX_OVERLAP = 7 * 24 * 3600

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Mint(Message, frozen=True):
    """`csr` is DER; `ttl` seconds, 0 for the server's default."""

    spiffe_id: str
    csr: bytes
    dns_names: list[str] = []
    ttl: int = 0


class MintJwt(Message, frozen=True):
    """`ttl` is seconds, 0 for the server's default."""

    spiffe_id: str
    audience: list[str]
    ttl: int = 0


class Rotate(Message, frozen=True):
    """`overlap`: for how many seconds the new CA is known before it signs."""

    overlap: float


class NewToken(Message, frozen=True):
    """A token for the agent called `name`; `registrar` lets it register its machine's workloads. `ttl` is seconds."""

    name: str
    ttl: int = 600
    registrar: bool = False


class Ban(Message, frozen=True):
    """Whether an agent is to be refused."""

    banned: bool


class Relationship(Message, frozen=True):
    """Another trust domain. `bundle` is its first one (SPIFFE document), needed with https_spiffe."""

    endpoint_url: str
    profile: Literal["https_spiffe", "https_web"]
    endpoint_spiffe_id: str = ""
    bundle: str = ""


class AdminApi:
    """An aiohttp application for operators of one authority.

    `federated` is called with the trust domain of a relationship that was entered or ended.
    """

    def __init__(self, authority: Authority, tokens: JoinTokens, federated: Callable[[str], None]) -> None:
        self._authority = authority
        self._federated = federated
        self._tokens = tokens
        self.app = web.Application(middlewares=[errors])
        self.app.router.add_get("", self._show)
        self.app.router.add_get("/", self._show)
        self.app.router.add_get("/bundles", self._bundles)
        self.app.router.add_post("/mint", self._mint)
        self.app.router.add_post("/mint-jwt", self._mint_jwt)
        self.app.router.add_post("/rotate", self._rotate)
        self.app.router.add_post("/tokens", self._make_token)
        self.app.router.add_get("/agents", self._agents)
        self.app.router.add_patch("/agents/{name}", self._ban)
        self.app.router.add_delete("/agents/{name}", self._evict)
        self.app.router.add_get("/federation", self._relationships)
        self.app.router.add_put("/federation/{trust_domain}", self._federate)
        self.app.router.add_delete("/federation/{trust_domain}", self._separate)

    async def _show(self, _: web.Request) -> web.Response:
        authority = self._authority
        settings = authority.settings
        entries = await asyncio.to_thread(authority.datastore.entries)
        slots = (("signing", authority.current), ("prepared", authority.upcoming))
        return json_response(
            {
                "trust_domain": settings.trust_domain,
                "server_id": authority.server_id,
                "svid_ttl": settings.svid_ttl,
                "ca_ttl": settings.ca_ttl,
                "ca_key_type": settings.ca_key_type,
                "problem": authority.problem,
                "upstream": "self-signed" if authority.upstream is None else str(authority.upstream),
                "key_manager": str(authority.key_manager),
                "datastore": str(authority.datastore),
                "authorities": [_about_ca(state, ca) for state, ca in slots if ca is not None],
                "retired": [{"id": each.ca_id, "until": each.until} for each in authority.retired],
                "entries": [
                    {
                        "id": entry.entry_id,
                        "spiffe_id": entry.spiffe_id,
                        "agent": entry.parent_id,
                        "dns_names": entry.dns_names,
                        "svid": self._about_issued(entry.entry_id),
                    }
                    for entry in entries
                ],
            }
        )

    def _about_issued(self, entry_id: str) -> dict[str, Any] | None:
        issued = self._authority.issued.get(entry_id)
        if issued is None:
            return None
        return {"serial": f"{issued.serial:x}", "issuer": issued.issuer, "not_after": issued.not_after}

    async def _bundles(self, _: web.Request) -> web.Response:
        keeper = self._authority.bundles
        every = {keeper.own.trust_domain: keeper.own, **keeper.federated}
        return json_response(
            [
                {
                    "trust_domain": name,
                    "own": bundle is keeper.own,
                    "document": bundles.encode(bundle).decode(),
                    "pem": "".join(certificate_pem(root) for root in bundle.x509_authorities),
                    "authorities": [
                        {"id": key_identifier(root), "not_after": root.not_valid_after_utc.timestamp()}
                        for root in bundle.x509_authorities
                    ],
                    "jwt_authorities": [key.key_id for key in bundle.jwt_authorities],
                    "sequence": bundle.sequence,
                }
                for name, bundle in every.items()
            ]
        )

    async def _mint(self, request: web.Request) -> web.Response:
        wanted = await _body(request, Mint)
        spiffe_id, ttl = self._own_id(wanted.spiffe_id), _ttl(wanted.ttl or self._authority.settings.svid_ttl)
        key = public_key_of(wanted.csr, spiffe_id, wanted.dns_names)
        chain = self._authority.issue(key, spiffe_id, wanted.dns_names, ttl)
        log.warning("an operator minted an X.509-SVID for %s, valid until %s", spiffe_id, chain[0].not_valid_after_utc)
        own = self._authority.bundles.own
        return json_response(
            {
                "chain": "".join(certificate_pem(certificate) for certificate in chain),
                "bundle": "".join(certificate_pem(root) for root in own.x509_authorities),
                "not_after": chain[0].not_valid_after_utc.timestamp(),
            }
        )

    async def _mint_jwt(self, request: web.Request) -> web.Response:
        wanted = await _body(request, MintJwt)
        spiffe_id, ttl = self._own_id(wanted.spiffe_id), _ttl(wanted.ttl or self._authority.settings.jwt_ttl)
        check_audience(wanted.audience)
        svid = self._authority.issue_jwt(spiffe_id, wanted.audience, ttl)
        log.warning("an operator minted a JWT-SVID for %s, valid for %d s", spiffe_id, ttl)
        return json_response({"token": svid.token, "not_after": svid.expires_at})

    async def _rotate(self, request: web.Request) -> web.Response:
        overlap = (await _body(request, Rotate)).overlap
        if not 0 <= overlap <= MAX_OVERLAP:
            raise RefusedError(f"overlap: {overlap:g} s is not between 0 and {MAX_OVERLAP} s")
        ca = await self._authority.rotate(overlap)
        log.warning("an operator asked for another CA")
        return json_response(_about_ca("prepared", ca))

    async def _make_token(self, request: web.Request) -> web.Response:
        wanted = await _body(request, NewToken)
        if wanted.name.startswith(K8S_PREFIX):
            raise RefusedError(f"name: those that begin with {K8S_PREFIX!r} are of nodes that Kubernetes vouches for")
        try:
            agent = agent_id(self._authority.settings.trust_domain, wanted.name)
            token = await asyncio.to_thread(self._tokens.make, str(agent), wanted.ttl, registrar=wanted.registrar)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        log.info("a join token for %s was made, good for %d s", agent, wanted.ttl)
        return json_response({"token": token, "agent": str(agent)})

    async def _agents(self, _: web.Request) -> web.Response:
        nodes = await asyncio.to_thread(self._authority.datastore.nodes)
        return json_response([msgspec.to_builtins(node) for node in nodes])

    async def _ban(self, request: web.Request) -> web.Response:
        node = await self._node(request)
        banned = (await _body(request, Ban)).banned
        await asyncio.to_thread(self._authority.datastore.ban_node, node.spiffe_id, banned)
        log.warning("an operator %s %s", "banned" if banned else "readmitted", node.spiffe_id)
        return json_response({})

    async def _evict(self, request: web.Request) -> web.Response:
        node = await self._node(request)
        await asyncio.to_thread(self._authority.datastore.delete_node, node.spiffe_id)
        log.warning("an operator evicted %s", node.spiffe_id)
        return json_response({})

    async def _relationships(self, _: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._authority.datastore.relationships)
        known = self._authority.bundles.federated
        return json_response(
            [
                {
                    **msgspec.to_builtins(each),
                    "authorities": len(known[each.trust_domain].x509_authorities) if each.trust_domain in known else 0,
                }
                for each in found
            ]
        )

    async def _federate(self, request: web.Request) -> web.Response:
        trust_domain = _trust_domain(request)
        wanted = await _body(request, Relationship)
        relationship = FederationRelationship(
            trust_domain, wanted.endpoint_url, wanted.profile, wanted.endpoint_spiffe_id
        )
        try:
            check_relationship(relationship, self._authority.settings.trust_domain)
        except FederationError as error:
            raise RefusedError(str(error)) from None
        datastore = self._authority.datastore
        first = None if not wanted.bundle else bundles.decode(trust_domain, wanted.bundle.encode())
        if wanted.profile == "https_spiffe":
            prover = SpiffeId.parse(wanted.endpoint_spiffe_id).trust_domain
            given = first is not None and prover == trust_domain
            if not given and await asyncio.to_thread(datastore.bundle, prover) is None:
                raise RefusedError(f"bundle: none of {prover} is known, and the endpoint is verified by it")
        await asyncio.to_thread(datastore.put_relationship, relationship)
        if first is not None:
            present = await asyncio.to_thread(datastore.bundle, trust_domain)
            await asyncio.to_thread(datastore.put_bundle, trust_domain, bundles.encode(first), present)
        await self._authority.turn()
        self._federated(trust_domain)
        log.warning("an operator federates this trust domain with %s", trust_domain)
        return json_response({})

    async def _separate(self, request: web.Request) -> web.Response:
        trust_domain = _trust_domain(request)
        datastore = self._authority.datastore
        if trust_domain not in [each.trust_domain for each in await asyncio.to_thread(datastore.relationships)]:
            raise web.HTTPNotFound(text=f"there is no relationship with {trust_domain}")
        await asyncio.to_thread(datastore.delete_relationship, trust_domain)
        await self._authority.turn()
        self._federated(trust_domain)
        log.warning("an operator ended the federation with %s", trust_domain)
        return json_response({})

    async def _node(self, request: web.Request) -> AttestedNode:
        name = request.match_info["name"]
        try:
            wanted = str(agent_id(self._authority.settings.trust_domain, name))
        except SpiffeIdError as error:
            raise RefusedError(str(error)) from None
        node = await asyncio.to_thread(self._authority.datastore.node, wanted)
        if node is None:
            raise web.HTTPNotFound(text=f"there is no agent {name}")
        return node

    def _own_id(self, text: str) -> SpiffeId:
        spiffe_id = _parsed(text, "spiffe_id")
        if spiffe_id.trust_domain != self._authority.settings.trust_domain:
            raise RefusedError(f"spiffe_id: {spiffe_id} is not in the trust domain of this server")
        return spiffe_id


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Says what goes wrong as JSON."""
    try:
        return await handler(request)
    except (RefusedError, SvidError, bundles.BundleError) as error:
        return json_response({"message": str(error)}, 422)
    except (UnavailableError, UpstreamError, DatastoreError) as error:
        return json_response({"message": str(error)}, 503)
    except web.HTTPException as error:
        return json_response({"message": error.text or error.reason}, error.status)


def _about_ca(state: str, ca: Ca) -> dict[str, Any]:
    issuer = ca.certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        "state": state,
        "id": ca.ca_id,
        "key_type": ca.settings.key_type,
        "issuer": str(issuer[0].value) if issuer and ca.chain else "self",
        "issuer_id": issuer_id(ca.certificate) if ca.chain else ca.ca_id,
        "not_after": ca.not_after,
        "activate_at": ca.activate_at,
        "prepare_next_at": ca.prepare_next_at,
    }


def _trust_domain(request: web.Request) -> str:
    name = request.match_info["trust_domain"]
    try:
        return SpiffeId(name).trust_domain
    except SpiffeIdError as error:
        raise RefusedError(str(error)) from None


def _parsed(text: str, field: str) -> SpiffeId:
    try:
        return SpiffeId.parse(text)
    except SpiffeIdError as error:
        raise RefusedError(f"{field}: {error}") from None


def _ttl(seconds: int) -> int:
    if not 1 <= seconds <= MAX_MINT_TTL:
        raise RefusedError(f"ttl: {seconds} s is not between 1 s and {MAX_MINT_TTL} s")
    return seconds


async def _body(request: web.Request, type_: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(f"malformed: {error}") from None
