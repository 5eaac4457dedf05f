"""A sidecar that enforces the control protocol on a real unix socket, and a source of states."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.node.push import Pace
from nginx_mesh.protocol.state import Cluster, Endpoint, Identity, StateEntry, Update

POD = ObjectKey("Pod", "default", "web-0")
OTHER = ObjectKey("Pod", "default", "web-1")
PACE = Pace(pause=0.001, check=0.05, retry=0.005, slowest_retry=0.02, timeout=2.0)
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0IHNlY3JldA==\n-----END PRIVATE KEY-----\n"


class Sidecar:
    """Holds a state as the protocol says. It can be started and killed, and keeps its state only while it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = 0
        self.state: dict[str, Any] = {}
        self.updates: list[dict[str, Any]] = []
        self.malformed: dict[str, str] = {}
        self.delay = 0.0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        self.version, self.state = 0, {}
        app = web.Application(client_max_size=1 << 26)
        app.router.add_put("/v1/state", self._put)
        app.router.add_get("/v1/state", self._get)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    async def kill(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.path.unlink(missing_ok=True)

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _put(self, request: web.Request) -> web.Response:
        update = json.loads(await request.read())
        self.updates.append(update)
        await asyncio.sleep(self.delay)
        if update["base"] is not None and update["base"] != self.version:
            return web.json_response({"version": self.version}, status=409)
        for key in update["set"]:
            if key in self.malformed:
                return web.json_response({"error": self.malformed[key], "key": key}, status=400)
        if update["base"] is None:
            self.state = {}
        self.state.update(update["set"])
        for key in update["delete"]:
            self.state.pop(key, None)
        for name, endpoints in update["endpoints"].items():
            self.state[f"cluster/{name}"]["endpoints"].update(endpoints)
        self.version = update["version"]
        return web.json_response({"version": self.version})


class Author:
    """A source with one growing cluster: version N has N - first endpoints."""

    def __init__(self, first: int = 1000) -> None:
        self.first = first
        self.version = first
        self.extra: dict[str, StateEntry] = {}

    def grow(self) -> None:
        self.version += 1

    def __call__(self, pod: ObjectKey, base: int | None) -> Update | None:
        if base is not None and self.first <= base <= self.version:
            added: dict[str, Endpoint | None] = {f"10.0.0.{n}:80": _PLAIN for n in range(base, self.version)}
            return Update(base=base, version=self.version, set_=self.extra, endpoints={"a/b:80": added})
        endpoints = {f"10.0.0.{n}:80": _PLAIN for n in range(self.first, self.version)}
        cluster = Cluster(lb_method="random", endpoints=endpoints)
        return Update(base=None, version=self.version, set_={"cluster/a/b:80": cluster, **self.extra})


_PLAIN = Endpoint(tls=False)


def identity(key: str = KEY) -> Identity:
    return Identity(spiffe_id="spiffe://example.org/ns/default/sa/web", svid="", key=key, bundle="")
