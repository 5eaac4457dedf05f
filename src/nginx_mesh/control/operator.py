"""What operators ask of a mesh as a whole: is it well, which Services has it, what are its settings and versions.

| request | |
|---|---|
| GET `/mesh/status` | facts, problems and warnings (meshstatus.py) |
| GET `/mesh/services?namespace=` | Services and what is behind them (meshservices.py) |
| GET `/mesh/config` | the settings in force, without secrets |
| GET `/mesh/version` | what runs: this process, and the sidecars' image |
| GET `/mesh/supportpkg` | the states of sidecars, a line of JSON each (support.py) |
| GET `/metrics`, `/healthz`, `/readyz` | observe/endpoints.py |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from nginx_mesh.admission import POLICIES
from nginx_mesh.api.annotations import wants_injection
from nginx_mesh.api.fullconfig import full_config
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.identity.embedded import LocalIdentity
from nginx_mesh.local.api.events import EventLog
from nginx_mesh.local.api.objects import Objects
from nginx_mesh.local.api.store import Resource, Store
from nginx_mesh.observe import Endpoints
from nginx_mesh.support.states import states
from nginx_mesh.version import version

from .health import Facts, findings, policy_facts, sidecar_facts, sidecars_facts, unix_time
from .mesh import Mesh
from .services import services
from .telemetry import MeshMetrics


@dataclass(frozen=True)
class Parts:
    """The parts of a mesh that are looked at. `readiness` is as Runtime.readiness, `clock` in Unix seconds."""

    name: str
    store: Store
    events: EventLog
    objects: Objects
    mesh: Mesh
    identity: LocalIdentity
    readiness: Callable[[], Resource]
    clock: Callable[[], float]


class Operator:
    """Answers operators. `sidecar_version` is that of the image that pods are given now."""

    def __init__(self, parts: Parts, sidecar_version: str) -> None:
        self._parts = parts
        self._sidecar_version = sidecar_version
        self._started = parts.clock()
        ready = {"store": parts.store.problem, **parts.identity.parts()}
        self._endpoints = Endpoints(ready, [MeshMetrics(parts.mesh, parts.store, parts.events, parts.identity)])

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [
            *self._endpoints.routes(),
            web.get("/mesh/status", self._status),
            web.get("/mesh/services", self._services),
            web.get("/mesh/config", self._config),
            web.get("/mesh/version", self._version),
            web.get("/mesh/supportpkg", self._support),
        ]

    async def status(self) -> Facts:
        """Facts, problems and warnings."""
        parts, now = self._parts, self._parts.clock()
        facts: Facts = {
            "mesh": parts.name,
            "daemon": {
                "version": version(),
                "pid": os.getpid(),
                "since": self._started,
                "unready": await self._endpoints.unready(),
            },
            "identity": parts.identity.facts(),
            "pods": parts.readiness(),
            "sidecars": sidecars_facts(self._sidecars(now), parts.mesh.version),
            "policies": policy_facts(policy for kind in sorted(POLICIES) for policy in parts.store.list(kind)),
        }
        problems, warnings = findings(facts, parts.events.list(), now)
        facts["problems"] = [finding._asdict() for finding in problems]
        facts["warnings"] = [finding._asdict() for finding in warnings]
        return {"well": not problems, **facts}

    def _sidecars(self, now: float) -> list[Facts]:
        """Those of pods that are on their way out are not of interest."""
        found = []
        for sidecar in self._parts.mesh.sidecars():
            pod = self._parts.store.get(sidecar.pod)
            if pod is not None and "deletionTimestamp" not in pod["metadata"]:
                age = now - unix_time(pod["metadata"]["creationTimestamp"])
                found.append(sidecar_facts(sidecar, self._parts.identity.agent.holding(sidecar.uid), age))
        return found

    async def _status(self, _: web.Request) -> web.Response:
        return _json(await self.status())

    async def _services(self, request: web.Request) -> web.Response:
        settings = self._parts.objects.settings()
        found = services(
            self._parts.mesh.catalog, settings.trust_domain, self._injects, request.query.get("namespace") or None
        )
        return _json(found)

    def _injects(self, namespace: str) -> bool:
        found = self._parts.store.get(ObjectKey("Namespace", "", namespace))
        return wants_injection((found or {"metadata": {}})["metadata"].get("labels", {}), {})

    async def _config(self, _: web.Request) -> web.Response:
        return _json(full_config(self._parts.objects.settings()))

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"nginx-mesh-local": version(), "nginx-mesh-sidecar": self._sidecar_version})

    async def _support(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        for line in states(self._parts.mesh):
            await response.write(line)
        return response


def _json(content: Any) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")
