"""The provider before SPIRE: before the real one where it is installed, always before a stand-in for it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.agent.spire.channel import UnixServer
from nginx_mesh.identity.agent.spire.entries import Entry, EntryClient
from nginx_mesh.identity.agent.spire.plan import EntrySettings
from nginx_mesh.identity.agent.spire.provider import SpireProvider
from nginx_mesh.identity.common import jwtsvid
from nginx_mesh.identity.common.keys import from_pem
from nginx_mesh.identity.common.workload import JwtRefusedError, WorkloadContext
from nginx_mesh.identity.common.x509svid import SvidError, certificate_pem, spiffe_id_of
from nginx_mesh.protocol.state import Identity
from tests.eventually import eventually
from tests.interop import spire
from tests.unit.identity.chains import openssl_verify
from tests.unit.identity.domains import Domain

from .standin import stand_in

Deployment = Any
SECONDS = 60
WEB, DB = (workload_id("spire.test", "shop", account) for account in ("web", "db"))


@pytest.fixture(params=["stand-in", pytest.param("spire", marks=spire.needed)])
async def deployment(request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    async with (stand_in if request.param == "stand-in" else spire.spire)() as running:
        yield running


class Node:
    """A provider at work, and what it reported."""

    def __init__(self, deployment: Deployment, svid_ttl: int, linger: float, partners: Sequence[str]) -> None:
        settings = EntrySettings(deployment.parent_id, deployment.selectors, svid_ttl, frozenset(partners))
        server = UnixServer(deployment.server_socket)
        self.provider = SpireProvider(settings, deployment.agent_socket, server, linger=linger, resync=1)
        self.updates: list[tuple[str, Identity | None]] = []

    def update(self, workload: str, identity: Identity | None) -> None:
        self.updates.append((workload, identity))

    def latest(self, workload: str) -> Identity | None:
        """What was last reported."""
        return next((identity for name, identity in reversed(self.updates) if name == workload), None)

    async def identity(self, workload: str, fits: Callable[[Identity], bool] = lambda _: True) -> Identity:
        """Wait until an identity was reported that fits."""
        await eventually(
            lambda: (found := self.latest(workload)) is not None and fits(found), f"an identity of {workload}", SECONDS
        )
        found = self.latest(workload)
        assert found is not None
        assert found == self.provider.identity(workload)
        return found


@asynccontextmanager
async def node(
    deployment: Deployment, *, svid_ttl: int = 3600, linger: float = 60, partners: Sequence[str] = ()
) -> AsyncIterator[Node]:
    running = Node(deployment, svid_ttl, linger, partners)
    task = asyncio.create_task(running.provider.run(running.update))
    try:
        yield running
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def operator(deployment: Deployment) -> AsyncIterator[EntryClient]:
    """Somebody else with access to the server."""
    async with grpc.aio.insecure_channel(f"unix:{deployment.server_socket}") as channel:
        yield EntryClient(channel)


async def until_entries(deployment: Deployment, fit: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while True:
        found: dict[str, Any] = await deployment.entries()
        if fit(found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


def leaf(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.svid.encode())


def names(identity: Identity) -> list[str]:
    try:
        found = leaf(identity).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return sorted(found.get_values_for_type(x509.DNSName))


def roots(identity: Identity) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(identity.bundle.encode())


def differs_from(former: Identity) -> Callable[[Identity], bool]:
    return lambda identity: identity.svid != former.svid


def paths(entries: dict[str, Any]) -> list[str]:
    return sorted(entry["spiffe_id"]["path"] for entry in entries.values())


async def test_pods_get_the_svids_of_their_service_accounts(deployment: Deployment, tmp_path: Path) -> None:
    async with node(deployment) as mesh:
        mesh.provider.register("a", WEB, ["web.shop.svc", "web.shop"])
        mesh.provider.register("b", DB)
        for name, spiffe_id in (("a", WEB), ("b", DB)):
            identity = await mesh.identity(name)
            assert identity.spiffe_id == str(spiffe_id) == str(spiffe_id_of(leaf(identity)))
            assert from_pem(identity.key).public_key() == leaf(identity).public_key()
            for purpose in ("sslserver", "sslclient"):
                assert not openssl_verify(tmp_path, identity.svid, identity.bundle, purpose, time.time())
        assert names(await mesh.identity("a")) == ["web.shop", "web.shop.svc"]
        assert mesh.provider.identity("c") is None

        mesh.provider.register("a2", WEB, ["web.shop"])
        assert await mesh.identity("a2") == mesh.provider.identity("a")
        found = await deployment.entries()
        assert paths(found) == [DB.path, WEB.path]
        assert all(name.startswith("nginx-mesh-") for name in found)


async def test_another_dns_name_is_added_without_a_moment_of_no_identity(deployment: Deployment) -> None:
    async with node(deployment) as mesh:
        mesh.provider.register("a", WEB, ["one.shop"])
        await mesh.identity("a")
        mesh.provider.register("a2", WEB, ["two.shop"])
        await mesh.identity("a", lambda found: names(found) == ["one.shop", "two.shop"])
        await mesh.identity("a2", lambda found: names(found) == ["one.shop", "two.shop"])
        assert (None not in dict(mesh.updates).values()) and all(identity for _, identity in mesh.updates)
        with pytest.raises(SvidError, match="DNS name"):
            mesh.provider.register("a", WEB, ["*.shop"])


async def test_only_our_own_entries_are_ever_removed(deployment: Deployment) -> None:
    theirs = Entry("theirs", workload_id("spire.test", "x", "y"), deployment.parent_id, deployment.selectors)
    same = Entry("same", DB, deployment.parent_id, deployment.selectors, ("kept.example",))
    async with operator(deployment) as operated:
        assert await operated.create([theirs, same]) == {}
    async with node(deployment, linger=1) as mesh:
        mesh.provider.register("a", WEB)
        mesh.provider.register("b", DB, ["unwanted.example"])
        await mesh.identity("a")
        assert names(await mesh.identity("b")) == ["kept.example"]
        mesh.provider.unregister("a")
        mesh.provider.unregister("b")
        found = await until_entries(deployment, lambda entries: len(entries) == 2)
        assert set(found) == {"theirs", "same"}
        assert mesh.provider.identity("a") is mesh.provider.identity("b") is None


async def test_a_restart_takes_up_what_is_there_and_removes_leftovers(deployment: Deployment) -> None:
    async with node(deployment) as mesh:
        mesh.provider.register("a", WEB)
        mesh.provider.register("b", DB)
        before = await mesh.identity("a")
        await mesh.identity("b")
        entries = await deployment.entries()
    async with node(deployment, linger=2) as mesh:
        mesh.provider.register("a", WEB)
        assert (await mesh.identity("a")) == before
        left = await until_entries(deployment, lambda found: len(found) == 1)
        assert left.items() <= entries.items()
        assert all(identity for _, identity in mesh.updates)


async def test_svids_are_renewed_at_half_life_and_a_shorter_life_applies_at_once(deployment: Deployment) -> None:
    async with node(deployment, svid_ttl=3600) as mesh:
        mesh.provider.register("a", WEB)
        first = await mesh.identity("a")
        mesh.provider.reconfigure(svid_ttl=deployment.short_ttl)
        short = await mesh.identity("a", differs_from(first))
        assert leaf(short).not_valid_after_utc.timestamp() - time.time() <= deployment.short_ttl
        for _ in range(3):
            now = await mesh.identity("a", differs_from(short))
            assert leaf(short).not_valid_after_utc.timestamp() > time.time(), "replaced after its end"
            short = now


async def test_identities_outlive_agent_and_server(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with node(deployment) as mesh:
        mesh.provider.register("a", WEB)
        identity = await mesh.identity("a")
        await deployment.stop_agent()
        await deployment.stop_server()
        mesh.provider.register("b", DB)
        await eventually(
            lambda: "SPIRE agent: FetchX509SVID" in caplog.text and "SPIRE server:" in caplog.text,
            lambda: f"both failures in the log: {caplog.text}",
            SECONDS,
        )
        assert mesh.provider.identity("a") == identity
        assert mesh.provider.identity("b") is None
        assert mesh.provider.problem.startswith("SPIRE agent: ")

        await deployment.start_server()
        await deployment.start_agent()
        await mesh.identity("b")
        await eventually(lambda: mesh.provider.problem == "", "the provider has no problem", SECONDS)
        assert all(found for _, found in mesh.updates)
        assert "SPIRE server: answers again" in caplog.text
        assert "FetchX509SVID: answers again" in caplog.text


async def test_nobody_gets_an_svid_of_a_new_ca_before_all_have_its_root(deployment: Deployment) -> None:
    async with node(deployment, svid_ttl=deployment.short_ttl) as mesh:
        for name, spiffe_id in (("a", WEB), ("b", DB)):
            mesh.provider.register(name, spiffe_id)
        before = {name: await mesh.identity(name) for name in "ab"}
        count = len(mesh.updates)
        await deployment.rotate_ca()
        (former,) = roots(before["a"])

        def is_moved(identity: Identity) -> bool:
            return leaf(identity).issuer != former.subject

        for name in "ab":
            await mesh.identity(name, is_moved)
        knows = dict.fromkeys("ab", 1)
        for name, reported in mesh.updates[count:]:
            assert reported is not None
            knows[name] = len(roots(reported))
            assert not is_moved(reported) or min(knows.values()) == 2
        assert former in roots(await mesh.identity("a"))


async def test_an_entry_that_an_operator_removes_is_made_again(deployment: Deployment) -> None:
    async with node(deployment) as mesh:
        mesh.provider.register("a", WEB)
        await mesh.identity("a")
        async with operator(deployment) as operated:
            assert await operated.delete(list(await deployment.entries())) == {}
        found = await until_entries(deployment, lambda entries: len(entries) == 1)
        assert paths(found) == [WEB.path]
        await mesh.identity("a")


async def test_what_spire_takes_away_is_gone(deployment: Deployment) -> None:
    """Our entry moves to a parent that is not this agent, so that it is not made again (its ID is taken)."""
    async with node(deployment) as mesh:
        mesh.provider.register("a", WEB)
        mesh.provider.register("b", DB)
        await mesh.identity("a")
        await mesh.identity("b")
        async with operator(deployment) as operated:
            (ours,) = [e for e in await operated.of_parent(deployment.parent_id) if e.spiffe_id == WEB]
            elsewhere = SpiffeId(deployment.trust_domain, "/elsewhere")
            moved = Entry(ours.entry_id, WEB, elsewhere, ours.selectors)
            assert await operated.update([moved]) == {}
        await eventually(lambda: mesh.updates[-1] == ("a", None), "the identity is taken away", SECONDS)
        assert mesh.provider.identity("a") is None
        assert mesh.provider.context("a") is None
        assert mesh.provider.identity("b") is not None


async def test_sockets_tell_what_their_pod_holds(deployment: Deployment) -> None:
    async with node(deployment) as mesh:
        provider = mesh.provider
        contexts = provider.source("a").updates()
        assert await anext(contexts) is None
        provider.register("a", WEB)
        provider.register("b", DB)
        await mesh.identity("a")
        await mesh.identity("b")
        context: WorkloadContext | None = None
        while context is None:
            context = await asyncio.wait_for(anext(contexts), SECONDS)
        assert [svid.spiffe_id for svid in context.svids] == [WEB]
        node_context = await anext(provider.node_source().updates())
        assert node_context is not None
        assert {svid.spiffe_id for svid in node_context.svids} == {WEB, DB}

        await eventually(
            lambda: (c := provider.context("a")) is not None and c.bundles["spire.test"].jwt_authorities,
            "the keys of JWT-SVIDs",
            SECONDS,
        )
        (token,) = await provider.source("a").jwt_svids(["db"], None)
        assert token.spiffe_id == WEB
        held = provider.context("a")
        assert held is not None
        assert jwtsvid.validate(token.token, "db", held.bundles, time.time())["sub"] == str(WEB)
        with pytest.raises(JwtRefusedError):
            await provider.source("a").jwt_svids(["db"], DB)
        with pytest.raises(JwtRefusedError):
            await provider.source("nobody").jwt_svids(["db"], None)
        provider.unregister("a")
        while context is not None:
            context = await asyncio.wait_for(anext(contexts), SECONDS)


async def test_what_the_server_refuses_is_logged_and_keeps_nobody_else_waiting(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(deployment) as mesh:
        mesh.provider.register("a", SpiffeId("elsewhere.test", "/ns/shop/sa/web"))
        mesh.provider.register("b", DB)
        await mesh.identity("b")
        assert mesh.provider.identity("a") is None
        refusals = [message for message in caplog.messages if "refused by the SPIRE server" in message]
        assert len(refusals) == 1
        assert "elsewhere.test" in refusals[0]


async def test_a_holding_names_certificate_and_roots(deployment: Deployment) -> None:
    async with node(deployment) as mesh:
        mesh.provider.register("a", WEB, ["web.shop"])
        waiting = mesh.provider.svid_status("a")
        assert waiting is not None
        assert (waiting.spiffe_id, waiting.serial) == (str(WEB), "")
        certificate = leaf(await mesh.identity("a"))
        held = mesh.provider.svid_status("a")
        assert held is not None
        assert held.serial == f"{certificate.serial_number:x}"
        assert held.not_after == certificate.not_valid_after_utc.timestamp()
        assert held.bundle == (held.issuer,)
        assert mesh.provider.svid_status("b") is None


async def test_bundles_of_trust_domains_that_we_federate_with_are_passed_on(deployment: Deployment) -> None:
    partner, stranger = Domain("partner.test"), Domain("stranger.test")
    for domain in (partner, stranger):
        await deployment.trust(domain.bundle())
    async with node(deployment, partners=["partner.test"]) as mesh:
        mesh.provider.register("a", WEB)
        identity = await mesh.identity("a", lambda found: bool(found.federated))
        assert identity.federated == {"partner.test": "".join(map(certificate_pem, partner.authorities))}
        partner.rotate()
        await deployment.trust(partner.bundle())
        both = "".join(map(certificate_pem, partner.authorities))
        await mesh.identity("a", lambda found: found.federated == {"partner.test": both})


async def test_no_key_is_ever_logged(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with node(deployment) as mesh:
        mesh.provider.register("a", WEB)
        key = from_pem((await mesh.identity("a")).key)
        secret = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        assert secret.hex() not in caplog.text
        assert "PRIVATE KEY" not in caplog.text + repr(mesh.updates)
