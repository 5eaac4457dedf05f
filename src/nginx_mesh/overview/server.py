"""Serves what the dashboard shows of a mesh.

| request | |
|---|---|
| GET `/mesh/graph` | workloads, the traffic between them in the last 30 s, splits and circuits |
| GET `/mesh/workloads/NAMESPACE/KIND/NAME` | a `deployment` or other workload: pods, identities, policies, traffic |
| GET `/mesh/events` | the newest events, the newest first |

The documents hold no secrets. Rates are per second, latencies are milliseconds, times are seconds since the epoch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

import msgspec
from aiohttp import web

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.status import StatusError
from nginx_mesh.api.values import MtlsMode
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.catalog.topology import Topology
from nginx_mesh.control.operator import MeshParts
from nginx_mesh.observe.responses import json_response
from nginx_mesh.protocol.state import Settings
from nginx_mesh.traffic.graph import GraphNode
from nginx_mesh.traffic.scraper import INTERVAL_SECONDS, Scraper
from nginx_mesh.traffic.server import WINDOW

from .edges import EdgeTraffic, Traffic, circuits_by_edge, edge_documents, splits_by_backend
from .graph import (
    REPLICATED,
    pods_by_node,
    replicas_by_node,
    sidecar_summary,
    totals,
    workload_summaries,
    workload_summary,
)
from .workload import events_of, pod_document, policies_of, policy_document

_MOST_EVENTS = 500
_RECENT_SECONDS = 1.5 * INTERVAL_SECONDS
_GRAPH_CACHE_SECONDS = 1.0


class Overview:
    """Routes for the mesh's API. `identities` lists the pods and their SVIDs."""

    def __init__(self, parts: MeshParts, scraper: Scraper, identities: Callable[[], list[Resource]]) -> None:
        self._parts = parts
        self._scraper = scraper
        self._identities = identities
        self._cached_graph: tuple[float, bytes] | None = None
        self._making_graph = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [
            web.get("/mesh/graph", self._answer_graph),
            web.get("/mesh/workloads/{namespace}/{kind}/{name}", self._answer_workload),
            web.get("/mesh/events", self._answer_events),
        ]

    async def graph(self) -> Resource:
        """The graph of the whole mesh."""
        traffic = await self._traffic()
        parts, settings, pods = self._parts, self._parts.settings(), list(self._topology.pods())
        return {
            "mesh": parts.name,
            "time": parts.clock(),
            "window": WINDOW,
            "mtls_mode": settings.mtls_mode,
            "trust_domain": settings.trust_domain,
            "counted": self._scraper.timeline.times[-1:],
            "sidecars": sidecar_summary(
                pods, len(parts.sidecars.live()), self._scraper.silent.keys(), parts.objects.list(Pod.KIND)
            ),
            "workloads": workload_summaries(pods, self._replicas(), self._mtls_modes(pods), traffic),
            "edges": self._edges(traffic),
        }

    async def workload(self, node: GraphNode) -> Resource:
        """One workload. Raises StatusError when the mesh has no such workload."""
        # Awaited first: everything after it is read from the mesh at one moment.
        traffic = await self._traffic()
        pods = pods_by_node(self._topology.pods()).get(node, [])
        replicas = self._replicas().get(node)
        if not pods and replicas is None:
            raise StatusError("NotFound", f'{node.kind} "{node.name}" not found in namespace {node.namespace}')
        keys = {pod.key for pod in pods}
        mtls_modes, timeline = self._mtls_modes(pods), self._scraper.timeline
        return {
            "time": self._parts.clock(),
            "window": WINDOW,
            **workload_summary(node, pods, replicas, mtls_modes, totals(traffic)),
            "services": sorted({service.name for key in keys for service in self._topology.services_of(key)}),
            "members": self._pods(pods, mtls_modes),
            "policies": self._policies(node, keys, traffic),
            "edges": [edge for edge in self._edges(traffic) if str(node) in (edge["from"], edge["to"])],
            "course": {
                "times": timeline.times,
                "in": asdict(timeline.series(node, "from")),
                "out": asdict(timeline.series(node, "to")),
            },
            "events": events_of(self.events(), node, keys),
        }

    def events(self) -> list[Resource]:
        """The newest events, the newest first."""
        return self._parts.events.list()[: -_MOST_EVENTS - 1 : -1]

    async def _answer_graph(self, _: web.Request) -> web.Response:
        # However many browsers ask, a graph of a thousand sidecars is made at most once in so many seconds.
        async with self._making_graph:
            if self._cached_graph is None or time.monotonic() - self._cached_graph[0] > _GRAPH_CACHE_SECONDS:
                self._cached_graph = time.monotonic(), msgspec.json.encode(await self.graph())
        return json_response(msgspec.Raw(self._cached_graph[1]))

    async def _answer_workload(self, request: web.Request) -> web.Response:
        match = request.match_info
        return json_response(await self.workload(GraphNode(match["namespace"], match["kind"], match["name"])))

    async def _answer_events(self, _: web.Request) -> web.Response:
        return json_response({"time": self._parts.clock(), "events": self.events()})

    @property
    def _topology(self) -> Topology:
        return self._parts.plane.catalog.topology

    async def _traffic(self) -> Traffic:
        window, recent = await self._scraper.edges(WINDOW, _RECENT_SECONDS)
        return {pair: EdgeTraffic(edge, recent.get(pair, edge)) for pair, edge in window.items()}

    def _replicas(self) -> dict[GraphNode, int]:
        return replicas_by_node(item for kind in REPLICATED for item in self._parts.objects.list(kind))

    def _mtls_modes(self, pods: Iterable[PodRecord]) -> dict[ObjectKey, MtlsMode]:
        """The effective mTLS mode of each pod that has a sidecar."""
        found = {}
        for pod in pods:
            entry = self._parts.plane.own_state(pod.key).get("settings")
            if isinstance(entry, Settings):
                found[pod.key] = entry.mtls_mode
        return found

    def _edges(self, traffic: Traffic) -> list[Resource]:
        splits = splits_by_backend(self._parts.plane.catalog.policies.splits)
        return edge_documents(traffic, splits, circuits_by_edge(self._scraper.breakers.values(), self._topology))

    def _pods(self, pods: Iterable[PodRecord], mtls_modes: dict[ObjectKey, MtlsMode]) -> list[Resource]:
        identities = {(identity["namespace"], identity["pod"]): identity for identity in self._identities()}
        found = []
        for pod in sorted(pods, key=lambda pod: pod.key):
            resource = self._parts.objects.get(pod.key)
            if resource is not None:
                silent = self._scraper.silent.get(resource["metadata"]["uid"])
                identity = identities.get((pod.key.namespace, pod.key.name), {})
                found.append(pod_document(resource, pod, mtls_modes.get(pod.key), silent, identity))
        return found

    def _policies(self, node: GraphNode, pods: Iterable[ObjectKey], traffic: Traffic) -> list[Resource]:
        plane = self._parts.plane
        enforced = set().union(*(plane.policies_at(pod) for pod in pods))
        servers = {server for caller, server in traffic if caller == node}
        resources = map(self._parts.objects.get, policies_of(node, servers, enforced, plane.catalog))
        return [policy_document(resource) for resource in resources if resource is not None]
