"""The control plane's API for operators: the health of the mesh, its Services, settings and versions.

| request | |
|---|---|
| GET `/mesh/status` | facts, problems and warnings (health.py) |
| GET `/mesh/services?namespace=` | Services and what is behind them (services.py) |
| GET `/mesh/config` | the settings in force, without secrets |
| GET `/mesh/version` | what runs: this process, and the sidecars' image |
| GET `/mesh/supportpkg` | the states of sidecars, a line of JSON each (states.py) |
| GET `/metrics`, `/healthz`, `/readyz` | observe/endpoints.py |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from prometheus_client.registry import Collector

from nginx_mesh.admission import POLICY_KINDS
from nginx_mesh.api.annotations import wants_injection
from nginx_mesh.api.fullconfig import full_config
from nginx_mesh.api.resource import ObjectReader, namespace_labels
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.times import unix_seconds
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.observe import MonitoringEndpoints, Part
from nginx_mesh.observe.responses import json_response
from nginx_mesh.version import version

from .health import Facts, findings, policy_facts, sidecar_facts, sidecars_facts
from .interfaces import EventReader, Sidecars
from .plane import Plane
from .services import services
from .states import states
from .telemetry import MeshMetrics


class IdentityFacts(Protocol):
    """What is known of who gives the mesh's pods their identities."""

    def facts(self) -> Facts:
        """The provider, its address and trust domain, its CAs, and in `delayed` why the next CA is not there yet."""

    def svid_status(self, uid: str) -> SvidStatus | None:
        """What is known of the SVID of the pod with a uid; None when it shall have none."""

    def parts(self) -> Mapping[str, Part]:
        """What has to be ready before pods get their identities."""

    def collectors(self) -> Sequence[Collector]:
        """What it measures for Prometheus."""


@dataclass(frozen=True)
class MeshParts:
    """The parts of a mesh that are looked at. `clock` gives seconds since the epoch.

    `storage` is the part that has to be ready for objects to be changed. `settings` are those in force, `readiness`
    counts pods, and says what is not ready and why. `versions` are those of the mesh's programs, by their names.
    """

    name: str
    plane: Plane
    sidecars: Sidecars
    objects: ObjectReader
    storage: Part
    events: EventReader
    identity: IdentityFacts
    settings: Callable[[], MeshSettings]
    readiness: Callable[[], Facts]
    versions: Mapping[str, str]
    clock: Callable[[], float]


class Operator:
    """Answers operators."""

    def __init__(self, parts: MeshParts) -> None:
        self._parts = parts
        self._started = parts.clock()
        metrics = MeshMetrics(parts.plane, parts.sidecars, parts.objects, parts.events, parts.identity.svid_status)
        self._endpoints = MonitoringEndpoints(
            {"store": parts.storage, **parts.identity.parts()}, [metrics, *parts.identity.collectors()]
        )

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
            "sidecars": sidecars_facts(self._sidecars(now), parts.plane.version),
            "policies": policy_facts(policy for kind in sorted(POLICY_KINDS) for policy in parts.objects.list(kind)),
        }
        problems, warnings = findings(facts, parts.events.list(), now)
        facts["problems"] = [finding._asdict() for finding in problems]
        facts["warnings"] = [finding._asdict() for finding in warnings]
        return {"well": not problems, **facts}

    def _sidecars(self, now: float) -> list[Facts]:
        """Those of pods that are on their way out are not of interest."""
        found = []
        for sidecar in self._parts.sidecars.all():
            pod = self._parts.objects.get(sidecar.pod)
            if pod is not None and "deletionTimestamp" not in pod["metadata"]:
                age = now - unix_seconds(pod["metadata"]["creationTimestamp"])
                found.append(sidecar_facts(sidecar, self._parts.identity.svid_status(sidecar.uid), age))
        return found

    async def _status(self, _: web.Request) -> web.Response:
        return json_response(await self.status())

    async def _services(self, request: web.Request) -> web.Response:
        settings = self._parts.settings()
        found = services(
            self._parts.plane.catalog, settings.trust_domain, self._injects, request.query.get("namespace") or None
        )
        return json_response(found)

    def _injects(self, namespace: str) -> bool:
        return wants_injection(namespace_labels(self._parts.objects, namespace), {})

    async def _config(self, _: web.Request) -> web.Response:
        return json_response(full_config(self._parts.settings()))

    async def _version(self, _: web.Request) -> web.Response:
        return json_response(dict(self._parts.versions))

    async def _support(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        for line in states(self._parts.plane, self._parts.sidecars):
            await response.write(line)
        return response
