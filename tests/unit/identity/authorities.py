"""Authorities for tests: clocks that are set, CAs without I/O, a company's CA above ours, what agents hold."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.agent.agent import Agent
from nginx_mesh.identity.common.ids import agent_spiffe_id
from nginx_mesh.identity.common.keymanager import KeyManager
from nginx_mesh.identity.common.keymanager.memory import MemoryKeyManager
from nginx_mesh.identity.common.keys import generate_key
from nginx_mesh.identity.common.x509svid import issue_authority, issue_intermediate, request_svid
from nginx_mesh.identity.inprocess import InProcessClient
from nginx_mesh.identity.server.authority import Authority
from nginx_mesh.identity.server.ca import Ca, CaSet, CaSettings, Step, activated, activation, next_step
from nginx_mesh.identity.server.datastore import IN_MEMORY, Datastore, DatastoreConfig, open_datastore
from nginx_mesh.identity.server.settings import IdentitySettings
from nginx_mesh.identity.server.upstream.base import MintedCa, UpstreamAuthority, UpstreamError
from nginx_mesh.protocol.state import Identity

from .server.upstream import pki

NOW = 1_800_000_000
MINUTE, HOUR, DAY = 60, 3600, 86_400
WEB = workload_id("example.org", "shop", "web")
API = workload_id("example.org", "shop", "api")
AGENT = agent_spiffe_id("example.org", "node-1")
HOURLY = IdentitySettings("example.org", svid_ttl=HOUR, ca_ttl=DAY)


class FakeClock:
    """A clock that only moves when told to."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class ShiftedClock:
    """The real clock plus an offset, for setting it."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


def new_ca(settings: CaSettings, now: float, activate_at: float, **more: object) -> Ca:
    """A CA that signs itself, made at `now`."""
    key = generate_key(settings.key_type)
    root = issue_authority(
        key, settings.trust_domain, int(now) - 300, int(now) + settings.ttl, x509.random_serial_number()
    )
    jwt_key = generate_key("ec-p256")
    return Ca(root, (), key, jwt_key, settings, int(now), activate_at, **more)  # type: ignore[arg-type]


def advanced(cas: CaSet, settings: CaSettings, now: float) -> CaSet:
    """The set after all that is to be done with it at `now`."""
    while (step := next_step(cas, settings, now)) is not None:
        match step:
            case Step.PREPARE:
                cas = CaSet(cas.current, new_ca(settings, now, activation(cas, settings, now)), cas.retired)
            case Step.ACTIVATE:
                cas = activated(cas, now)
            case Step.DISCARD:
                cas = CaSet(cas.current, None, cas.retired)
    return cas


class Company:
    """An upstream authority: an intermediate below a root signs our CAs. `down` is why it does not, if it does not."""

    def __init__(self, name: str = "Company", now: float = NOW) -> None:
        self.root = pki.make_ca(f"{name} root", start=now - 3650 * DAY, end=now + 3650 * DAY)
        self.middle = pki.make_ca(
            f"{name} issuing", self.root, path_length=1, start=now - 3650 * DAY, end=now + 3000 * DAY
        )
        self.down = ""
        self.minted = 0

    async def mint_ca(self, csr: x509.CertificateSigningRequest, not_before: float, not_after: float) -> MintedCa:
        if self.down:
            raise UpstreamError(self.down)
        self.minted += 1
        middle = self.middle
        signed = issue_intermediate(
            middle.certificate, middle.key, csr, not_before, not_after, x509.random_serial_number()
        )
        return MintedCa((signed, middle.certificate), (self.root.certificate,))

    async def roots(self) -> tuple[x509.Certificate, ...]:
        if self.down:
            raise UpstreamError(self.down)
        return (self.root.certificate,)

    async def close(self) -> None: ...

    def __str__(self) -> str:
        return "the company's CA"


def sqlite(directory: Path, clock: Callable[[], float]) -> Datastore:
    """A datastore in a file."""
    return open_datastore(DatastoreConfig(), directory, clock)


def authority(
    clock: Callable[[], float],
    settings: IdentitySettings = HOURLY,
    *,
    keys: KeyManager | None = None,
    datastore: Datastore | None = None,
    upstream: UpstreamAuthority | None = None,
    server_id: str = "server",
) -> Authority:
    """An authority, by default with nothing that outlives it."""
    return Authority(
        settings,
        key_manager=keys or MemoryKeyManager(),
        datastore=datastore or open_datastore(IN_MEMORY, Path(), clock),
        upstream=upstream,
        server_id=server_id,
        clock=clock,
    )


@asynccontextmanager
async def started(server: Authority) -> AsyncIterator[Authority]:
    """An authority that is closed at the end."""
    try:
        await server.start()
        yield server
    finally:
        await server.close()


KEY = generate_key("ec-p256")


def csr(spiffe_id: SpiffeId | None = WEB, key: object = KEY) -> bytes:
    """A request for an SVID, in DER."""
    return request_svid(key, spiffe_id).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


class Node:
    """An agent of an authority in the same process, driven by hand, and what its workloads were told."""

    def __init__(self, server: Authority, name: str = "node-1", clock: Callable[[], float] | None = None) -> None:
        self.server = server
        self.client = InProcessClient(server, str(agent_spiffe_id(server.settings.trust_domain, name)))
        self.agent = Agent(self.client, clock or server.clock, random.Random(7))
        self.told: list[tuple[str, Identity]] = []

    def on_update(self, workload: str, identity: Identity | None) -> None:
        assert identity is not None, "an authority takes no identity away"
        self.told.append((workload, identity))

    async def turn(self) -> None:
        """A turn of the server, its announcement, a turn of the agent."""
        await self.server.turn()
        await self.listen()
        await self.agent.turn(self.on_update)

    async def listen(self) -> None:
        self.agent.heard(await anext(self.client.watch()))

    def identity(self, workload: str) -> Identity:
        identity = self.agent.identity(workload)
        assert identity is not None
        return identity


def certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def leaf(identity: Identity) -> x509.Certificate:
    return certificates(identity.svid)[0]


def not_after(identity: Identity) -> float:
    return leaf(identity).not_valid_after_utc.timestamp()


def names_of(certificate: x509.Certificate) -> Sequence[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)
