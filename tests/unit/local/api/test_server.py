"""The API of a local mesh over its socket: errors, objects, logs, and the place of the identity authority."""

from __future__ import annotations

import asyncio
import base64
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.local.api.describe import Describer
from nginx_mesh.local.api.events import EventLog
from nginx_mesh.local.api.identityroutes import IdentityRoutes
from nginx_mesh.local.api.logroutes import LogRoutes
from nginx_mesh.local.api.objectroutes import ObjectRoutes
from nginx_mesh.local.api.objects import Objects
from nginx_mesh.local.api.server import ApiServer
from nginx_mesh.local.api.store import Store

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "prepare"}]},
    "status": {"phase": "Running"},
}
LOG = "/api/v1/namespaces/default/pods/web/log"


class Provider:
    """The identity of one pod, from an authority elsewhere."""

    admin: web.Application | None = None

    def where(self) -> dict[str, str]:
        return {"provider": "server", "address": "identity.example:8081", "trust_domain": "example.org"}

    def svid_status(self, uid: str) -> SvidStatus | None:
        return SvidStatus("spiffe://example.org/web", ("web",))


class Api:
    """A served store, and requests to it."""

    def __init__(self, directory: Path) -> None:
        self.socket, self.logs = directory / "api.sock", directory / "logs"
        self.logs.mkdir()
        self.store = Store(directory / "store.db", lambda: 0.0)
        events = EventLog(lambda: 0.0)
        provider = Provider()
        objects = Objects(self.store, events, MeshSettings(trust_domain="example.org"), lambda: 0.0)
        describer = Describer(objects, events, provider.svid_status, lambda service: ["10.0.0.1:80"])
        routes = [
            *ObjectRoutes(objects, describer.describe, lambda only: {"asked": sorted(map(str, only or ()))}).routes(),
            *LogRoutes(objects, lambda uid: self.logs).routes(),
            *IdentityRoutes(self.store, provider).routes(),
        ]
        self.server = ApiServer(self.socket, routes, {})
        with self.store.transaction() as tx:
            tx.put(POD)

    async def request(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.request(method, f"http://mesh{path}", **options) as response,
        ):
            return response.status, await response.json()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    found = Api(tmp_path)
    await found.server.start()
    yield found
    await found.server.close()
    found.store.close()


def manifest(text: str) -> dict[str, Any]:
    return {"files": [{"source": "f", "data": base64.b64encode(text.encode()).decode()}]}


async def test_only_root_can_open_the_socket(api: Api) -> None:
    assert stat.S_IMODE(api.socket.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("method", "path", "options", "code", "reason", "message"),
    [
        ("GET", "/api/v1/namespaces/default/pods/none", {}, 404, "NotFound", 'pods "none" not found'),
        ("GET", "/api/v1/nothings", {}, 404, "NotFound", 'there is no resource type "nothings"'),
        ("GET", "/elsewhere", {}, 404, "NotFound", "404: Not Found"),
        ("PATCH", "/mesh/settings", {"data": b"{"}, 400, "BadRequest", "truncated"),
        ("POST", "/mesh/apply", {"json": {"files": [{"source": "f", "data": "*"}]}}, 400, "BadRequest", "data:"),
        ("POST", "/mesh/apply", {"json": manifest("kind: Pod")}, 422, "Invalid", "apiVersion"),
        ("PUT", "/mesh/settings", {}, 405, "MethodNotAllowed", "405"),
        ("DELETE", "/api/v1/namespaces/kube-system", {}, 403, "Forbidden", "may not be deleted"),
        ("GET", f"{LOG}?container=app&tailLines=-1", {}, 400, "BadRequest", '"-1" is not a number'),
        ("GET", f"{LOG}?container=other", {}, 400, "BadRequest", "container other is not valid for pod web"),
        ("GET", "/apis/apps/v1/namespaces/default/deployments/a/log", {}, 400, "BadRequest", "only pods have logs"),
        ("POST", "/identity/rotate", {}, 404, "NotFound", "identity.example:8081: ask there"),
    ],
)
async def test_every_error_is_a_status_object(
    api: Api, method: str, path: str, options: dict[str, Any], code: int, reason: str, message: str
) -> None:
    status, answer = await api.request(method, path, **options)
    assert (status, answer["kind"], answer["code"], answer["reason"]) == (code, "Status", code, reason)
    assert message in answer["message"]


async def test_what_fails_inside_is_logged_and_not_shown(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with api.store.transaction() as tx:
        tx.put({**POD, "spec": {}})
    status, answer = await api.request("GET", f"{LOG}?container=app")
    assert (status, answer["reason"]) == (500, "InternalError")
    assert "KeyError" not in answer["message"]
    assert "KeyError" in caplog.text


async def test_a_pod_is_described_with_its_identity_and_readiness_is_asked_for_single_objects(api: Api) -> None:
    _, description = await api.request("GET", "/api/v1/namespaces/default/pods/web/description")
    assert (description["object"]["kind"], description["events"]) == ("Pod", [])
    assert description["identity"]["spiffe_id"] == "spiffe://example.org/web"
    _, identities = await api.request("GET", "/mesh/identities")
    assert [(each["pod"], each["dns_names"]) for each in identities] == [("web", ["web"])]
    _, readiness = await api.request("GET", "/mesh/readiness?object=pod/web,deploy/api&namespace=shop")
    wanted = [ObjectKey("Pod", "shop", "web"), ObjectKey("Deployment", "shop", "api")]
    assert readiness == {"asked": sorted(map(str, wanted))}


async def test_a_log_is_followed_until_its_pod_has_ended(api: Api) -> None:
    log = api.logs / "app.log"
    log.write_text("one\ntwo\n")
    (api.logs / "prepare.log").write_text("prepared\n")
    connector = aiohttp.UnixConnector(str(api.socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(f"http://mesh{LOG}?container=prepare") as response:
            assert await response.text() == "prepared\n"
        async with session.get(f"http://mesh{LOG}?container=app&tailLines=1&follow=true") as response:
            assert await response.content.readline() == b"two\n"
            with log.open("a") as writer:
                writer.write("three\n")
            async with asyncio.timeout(10):
                assert await response.content.readline() == b"three\n"
            with api.store.transaction() as tx:
                tx.put({**POD, "status": {"phase": "Succeeded"}})
            async with asyncio.timeout(10):
                assert await response.content.read() == b""
