"""Proof with go-spiffe, which most applications and proxies of the SPIFFE world use."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from nginx_mesh.identity.agent.workloadapi.server import WorkloadApiServer
from nginx_mesh.identity.common.tls import peer_id, server_context
from tests.interop.gospiffe import Running, output, running
from tests.unit.identity import httpserver
from tests.unit.identity.domains import Domain

from .source import Workload


@asynccontextmanager
async def serving(workload: Workload, path: Path) -> AsyncIterator[Path]:
    server = WorkloadApiServer(workload, path)
    await server.start()
    try:
        yield path
    finally:
        await server.close()


def serial(workload: Workload) -> str:
    assert workload.context is not None
    return str(workload.context.svids[0].chain[0].serial_number)


async def test_source_follows_rotation_loss_and_a_restart(tmp_path: Path) -> None:
    workload = Workload(Domain(), "/web", federated={"partner.test": Domain("partner.test").bundle()})
    async with running("watch", tmp_path / "agent.sock") as watch:
        async with serving(workload, tmp_path / "agent.sock"):
            for authorities in range(1, 4):
                said = await next_svid(watch)
                assert said["id"] == "spiffe://example.org/web"
                assert said["serial"] == serial(workload)
                assert said["authorities"] == {"example.org": authorities, "partner.test": 1}
                workload.domain.rotate()
                workload.renew()
            assert (await next_svid(watch))["serial"] == serial(workload)
            workload.set(None)
            assert "PermissionDenied" in (await watch.line())["error"]
            workload.renew()
            assert (await next_svid(watch))["serial"] == serial(workload)
        workload.renew()
        async with serving(workload, tmp_path / "agent.sock"):
            assert (await next_svid(watch))["serial"] == serial(workload)


async def next_svid(watch: Running) -> dict[str, object]:
    """The next SVID; errors before it are of a server that was away."""
    while "error" in (said := await watch.line()):
        pass
    return dict(said)


async def test_callers_are_told_what_they_may_not_have(tmp_path: Path) -> None:
    workload = Workload(Domain(), "/web")
    workload.set(None)
    async with serving(workload, tmp_path / "agent.sock") as socket:
        said = await output("code", socket)
    assert "PermissionDenied" in said["x509"]
    assert "no identity issued" in said["x509"]
    assert "Unimplemented" in said["wit"]


async def test_tokens_are_fetched_and_validated(tmp_path: Path) -> None:
    async with serving(Workload(Domain(), "/web"), tmp_path / "agent.sock") as socket:
        said = await output("tokens", socket, "db")
    assert said["id"] == said["here"] == said["there"] == said["claims"] == "spiffe://example.org/web"
    assert said["audience"] == ["db"]
    assert "the token is not for 'not db'" in said["wrong"]


async def test_mtls_between_two_workloads_through_rotation(tmp_path: Path) -> None:
    domain = Domain()
    server, client = Workload(domain, "/server"), Workload(domain, "/client")
    ids = ["spiffe://example.org/server", "spiffe://example.org/client"]

    async def renew_both(mtls: Running) -> None:
        """Sources hear of a renewal a moment later, at different times; the handshakes until then are good, too."""
        for workload in (server, client):
            workload.renew()
        latest = (serial(server), serial(client))
        said: dict[str, str] = {}
        while (said.get("server serial"), said.get("client serial")) != latest:
            mtls.send("go\n")
            said = await mtls.line()
            assert [said.get("server"), said.get("client")] == ids, said

    async with (
        serving(server, tmp_path / "server.sock") as one,
        serving(client, tmp_path / "client.sock") as other,
        running("mtls", one, other, *ids) as mtls,
    ):
        for _ in range(3):
            coming = domain.prepare()
            await renew_both(mtls)
            domain.signer = coming
            await renew_both(mtls)
    async with (
        serving(server, tmp_path / "server.sock") as one,
        serving(client, tmp_path / "client.sock") as other,
        running("mtls", one, other, ids[0], "spiffe://example.org/admin") as mtls,
    ):
        mtls.send("go\n")
        assert 'unexpected ID "spiffe://example.org/client"' in (await mtls.line())["error"]


async def test_mtls_across_trust_domains(tmp_path: Path) -> None:
    home, partner = Domain(), Domain("partner.test")
    server = Workload(home, "/server", federated={"partner.test": partner.bundle()})
    client = Workload(partner, "/client", federated={"example.org": home.bundle()})
    async with (
        serving(server, tmp_path / "server.sock") as one,
        serving(client, tmp_path / "client.sock") as other,
        running("mtls", one, other, "spiffe://example.org/server", "spiffe://partner.test/client") as mtls,
    ):
        mtls.send("go\n")
        assert (await mtls.line())["client"] == "spiffe://partner.test/client"


async def test_go_client_and_our_tls_server_know_each_other(tmp_path: Path) -> None:
    domain = Domain()
    svid = domain.svid("/server")

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(peer_id(request.transport)))

    context = server_context(lambda: svid, domain.bundle, lambda peer: None)
    async with (
        httpserver.serving(answer, context) as address,
        serving(Workload(domain, "/client"), tmp_path / "agent.sock") as socket,
    ):
        said = await output("get", socket, f"{address}/", "spiffe://example.org/server")
    assert said == {"status": 200, "body": "spiffe://example.org/client"}
