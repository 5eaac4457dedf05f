"""Who sees which requests, and what sidecars are told to report."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from nginx_mesh.api.kinds import decode
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import Service
from nginx_mesh.api.status import StatusError
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Upsert
from nginx_mesh.control.taphub import TapHub
from nginx_mesh.node.control import ControlSocket
from nginx_mesh.protocol.control import Tap
from nginx_mesh.protocol.report import Report
from tests.eventually import eventually

WEB, CLIENT, OTHER = (ObjectKey("Pod", "shop", name) for name in ("web", "client", "other"))
ADDRESSES = {WEB: "10.0.0.1", CLIENT: "10.0.0.2", OTHER: "10.0.0.3"}
ID = "spiffe://example.org/ns/shop/sa/web"


def catalog() -> Catalog:
    found = Catalog()
    for key, address in ADDRESSES.items():
        pod = {
            "apiVersion": "v1",
            "kind": Pod.KIND,
            "metadata": {"name": key.name, "namespace": "shop", "labels": {"app": key.name}},
            "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]},
            "status": {"podIP": address, "podIPs": [{"ip": address}]},
        }
        found.apply(Upsert(decode(pod)))
    service = {
        "apiVersion": "v1",
        "kind": Service.KIND,
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    found.apply(Upsert(decode(service)))
    return found


def received(path: str = "/", *, client: str = "10.0.0.2", method: str = "GET", status: int = 200) -> Report:
    facts: dict[str, Any] = {"server": 1, "tapped": 1, "start_us": 1, "duration_us": 1500, "status": status}
    more: dict[str, Any] = {
        "http2": 0,
        "mtls": 1,
        "tries": 1,
        "client_port": 1,
        "method": method,
        "path": path,
        "client": client,
    }
    return Report(**facts, **more)


class Sidecar:
    """A control socket that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    async def put(self, request: web.Request) -> web.Response:
        self.told.append(orjson.loads(await request.read()))
        return web.json_response({})


class Scene:
    """A hub with a sidecar for the pod `web`, and its API."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.sidecar = Sidecar()
        self._directory = directory
        self.hub = TapHub(catalog().topology, self._tell, lambda: self.now)

    async def _tell(self, taps: Mapping[ObjectKey, Tap]) -> None:
        if WEB in taps:
            async with ControlSocket(self._directory / "control.sock") as sidecar:
                await sidecar.tap(taps[WEB])

    async def run(self, scenario: Callable[[Scene], Awaitable[None]]) -> None:
        sidecar, api = web.Application(), web.Application(middlewares=[_plain])
        sidecar.router.add_put("/v1/tap", self.sidecar.put)
        api.add_routes(self.hub.routes())
        runners = []
        for app, name in ((sidecar, "control.sock"), (api, "api.sock")):
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.UnixSite(runner, str(self._directory / name)).start()
            runners.append(runner)
        task = asyncio.create_task(self.hub.run())
        try:
            async with aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._directory / "api.sock"))
            ) as api_:
                self.api = api_
                await scenario(self)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for runner in runners:
                await runner.cleanup()

    async def watch(self, **query: str) -> aiohttp.ClientResponse:
        return await self.api.get("http://mesh/mesh/tap", params={"namespace": "shop", **query})

    def show(self, *reports: Report) -> None:
        for report in reports:
            self.hub.received(WEB, ID, report)


@web.middleware
async def _plain(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    try:
        return await handler(request)
    except StatusError as error:
        return web.Response(status=400, text=str(error))


def play(tmp_path: Path, scenario: Callable[[Scene], Awaitable[None]]) -> None:
    asyncio.run(Scene(tmp_path).run(scenario))


async def lines(response: aiohttp.ClientResponse, n: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [orjson.loads(await response.content.readline()) for _ in range(n)]


def test_a_sidecar_is_told_while_somebody_watches_and_then_to_end(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        response = await scene.watch(of="web", method="get", path_prefix="/a", status="5xx", max_rps="7")
        wanted = {"method": "GET", "path": "/a", "lowest": 500, "highest": 599, "max_rps": 7, "seconds": 6, "peers": []}
        assert scene.sidecar.told[0] == wanted
        await eventually(lambda: len(scene.sidecar.told) >= 3, "the sidecar is told again, before its tap ends")
        response.close()
        await eventually(lambda: scene.sidecar.told[-1]["seconds"] == 0, "the sidecar is told to end its tap")
        told = len(scene.sidecar.told)
        await asyncio.sleep(2.5)
        assert len(scene.sidecar.told) == told

    play(tmp_path, scenario)


def test_two_who_watch_see_each_what_he_asked_for(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        posts, everything = await scene.watch(of="pod/web", method="POST"), await scene.watch(of="shop/svc/web")
        assert scene.sidecar.told[-1].items() >= {"method": "", "max_rps": 200}.items()
        scene.show(received("/get"), received("/post", method="POST"))
        assert [line["path"] for line in await lines(everything, 2)] == ["/get", "/post"]
        (line,) = await lines(posts, 1)
        assert line.items() >= {"path": "/post", "peer": "shop/client", "serverId": ID, "latencyMs": 1.5}.items()

    play(tmp_path, scenario)


def test_the_other_side_can_be_chosen(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        response = await scene.watch(of="web", **{"from": "client"})
        assert scene.sidecar.told[-1]["peers"] == ["10.0.0.2"]
        scene.show(received("/other", client="10.0.0.3"), received("/client"))
        assert (await lines(response, 1))[0]["path"] == "/client"
        response = await scene.watch(of="client", to="svc/web")
        sent = received("/sent")
        for upstream, destination in (("10.0.0.3:80", "10.96.0.9:80"), ("", "10.96.0.1:80"), ("10.0.0.1:8080", "")):
            facts = {"server": 0, "upstream": upstream, "destination": destination, "path": f"/{upstream}"}
            known = {name: getattr(sent, name) for name in sent.__struct_fields__}
            scene.hub.received(CLIENT, ID, Report(**{**known, **facts}))
        assert [line["path"] for line in await lines(response, 2)] == ["/", "/10.0.0.1:8080"]

    play(tmp_path, scenario)


def test_of_more_than_the_rate_some_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    async def scenario(scene: Scene) -> None:
        response = await scene.watch(of="web", max_rps="3")
        scene.show(*(received(f"/{i}") for i in range(10)))
        shown = await lines(response, 4)
        assert [line["path"] for line in shown if "path" in line] == ["/0", "/1", "/2"]
        assert {"skipped": 7} in shown
        scene.now = 1.0
        scene.show(received("/later"))
        assert (await lines(response, 1))[0]["path"] == "/later"

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "of: is missing"),
        ({"of": "nobody"}, "there is no pod of shop/nobody"),
        ({"of": "web", "max_rps": "0"}, "is not a number from 1 to 1000"),
        ({"of": "web", "max_rps": "\u0661"}, "is not a number from 1 to 1000"),
        ({"of": "web", "status": "99"}, "neither a status"),
        ({"of": "//"}, "is not [NAMESPACE/][KIND/]NAME"),
        ({"of": "web", "from": "secret/x"}, "a Secret has no requests"),
    ],
    ids=str,
)
def test_a_wish_that_makes_no_sense_is_refused(tmp_path: Path, query: dict[str, str], said: str) -> None:
    async def scenario(scene: Scene) -> None:
        response = await scene.watch(**query)
        assert response.status == 400
        assert said in await response.text()
        assert scene.sidecar.told == []

    play(tmp_path, scenario)
