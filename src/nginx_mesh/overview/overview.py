"""The mesh as people look at it: the graph of its traffic, a workload with all that concerns it, what happened.

| request | |
|---|---|
| GET `/mesh/graph` | workloads, who called whom in the last 30 s and how, splits and circuits |
| GET `/mesh/workloads/NAMESPACE/KIND/NAME` | a `deployment` or other workload: pods, identities, policies, traffic |
| GET `/mesh/events` | the newest events, the newest first |

Nothing of it is secret. Rates are per second, times milliseconds, moments seconds since the epoch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from typing import Any

import orjson
from aiohttp import web

from nginx_mesh.api.core import Service
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.api.status import StatusError
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.catalog.topology import Topology
from nginx_mesh.control.operator import MeshParts
from nginx_mesh.control.readiness import is_ready
from nginx_mesh.protocol.state import Settings
from nginx_mesh.traffic.connections import Connections
from nginx_mesh.traffic.flows import Counts
from nginx_mesh.traffic.graph import Link, Node, node_of, security
from nginx_mesh.traffic.scraper import INTERVAL_SECONDS, Scraper
from nginx_mesh.traffic.server import WINDOW

_MOST_EVENTS = 500
_MOST_SILENT = 10
# How soon a lock is seen to open or close: long before what went the other way has left the window.
_LATELY = 1.5 * INTERVAL_SECONDS
# However many look, the graph is made anew this often at most.
_GRAPH_SECONDS = 1.0
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_KINDS = {
    "deployment": "Deployment",
    "statefulset": "StatefulSet",
    "daemonset": "DaemonSet",
    "job": "Job",
    "pod": "Pod",
}
_CIRCUITS = {0.0: "closed", 1.0: "open", 2.0: "half_open"}

Document = dict[str, Any]
_Links = Mapping[tuple[Node, Node], tuple[Link, Link]]
"""Links of the whole window, each with what was counted of it lately."""


class Overview:
    """Makes the documents. `identities` are who has which SVID."""

    def __init__(self, parts: MeshParts, scraper: Scraper, identities: Callable[[], list[Document]]) -> None:
        self._parts = parts
        self._scraper = scraper
        self._identities = identities
        self._graph: tuple[float, bytes] | None = None
        self._making = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """What the API serves of it."""
        return [
            web.get("/mesh/graph", self._answer_graph),
            web.get("/mesh/workloads/{namespace}/{kind}/{name}", self._answer_workload),
            web.get("/mesh/events", self._answer_events),
        ]

    async def graph(self) -> Document:
        """The whole mesh."""
        found = await self._links()
        pods, sums = self._pods_by_node(), _sums(found)
        objects = {node: _pods_wanted(resource) for node, resource in self._objects_by_node()}
        nodes = {*pods, *objects, *(node for edge in found for node in edge)}
        live, silent = self._parts.sidecars.live(), self._scraper.silent
        by_uid = {item["metadata"]["uid"]: item["metadata"] for item in self._parts.objects.list("Pod")}
        quiet = sorted(f"{by_uid[uid]['namespace']}/{by_uid[uid]['name']}" for uid in silent if uid in by_uid)
        settings = self._parts.settings()
        return {
            "mesh": self._parts.name,
            "time": self._parts.clock(),
            "window": WINDOW,
            "mtls_mode": settings.mtls_mode,
            "trust_domain": settings.trust_domain,
            "counted": self._scraper.timeline.times[-1:],
            "sidecars": {
                "all": sum(pod.meshed for members in pods.values() for pod in members),
                "live": len(live),
                "silent": len(quiet),
                "silent_names": quiet[:_MOST_SILENT],
            },
            "workloads": [self._summary(node, pods.get(node, []), objects.get(node), sums) for node in sorted(nodes)],
            "edges": self._edges(found),
        }

    async def workload(self, node: Node) -> Document:
        """One workload. Raises StatusError when there is none."""
        found = await self._links()  # first: the mesh changes meanwhile
        pods = self._pods_by_node().get(node, [])
        wanted = dict(self._objects_by_node()).get(node)
        if not pods and wanted is None:
            raise StatusError("NotFound", f'{node.kind} "{node.name}" not found in namespace {node.namespace}')
        keys = {pod.key for pod in pods}
        timeline = self._scraper.timeline
        return {
            "time": self._parts.clock(),
            "window": WINDOW,
            **self._summary(node, pods, None if wanted is None else _pods_wanted(wanted), _sums(found)),
            "services": sorted({service.name for key in keys for service in self._topology.services_of(key)}),
            "members": self._members(keys),
            "policies": self._policies(node, keys, found),
            "edges": [edge for edge in self._edges(found) if str(node) in (edge["from"], edge["to"])],
            "course": {
                "times": timeline.times,
                "in": asdict(timeline.course(node, "from")),
                "out": asdict(timeline.course(node, "to")),
            },
            "events": [event for event in self.events() if _concerns(event, node, keys)],
        }

    def events(self) -> list[Document]:
        """The newest events, the newest first."""
        return self._parts.events.list()[: -_MOST_EVENTS - 1 : -1]

    async def _answer_graph(self, _: web.Request) -> web.Response:
        async with self._making:
            if self._graph is None or time.monotonic() - self._graph[0] > _GRAPH_SECONDS:
                self._graph = time.monotonic(), orjson.dumps(await self.graph())
        return web.Response(body=self._graph[1], content_type="application/json")

    async def _answer_workload(self, request: web.Request) -> web.Response:
        match = request.match_info
        return _json(await self.workload(Node(match["namespace"], match["kind"], match["name"])))

    async def _answer_events(self, _: web.Request) -> web.Response:
        return _json({"time": self._parts.clock(), "events": self.events()})

    @property
    def _topology(self) -> Topology:
        return self._parts.plane.catalog.topology

    def _pods_by_node(self) -> dict[Node, list[PodRecord]]:
        found: dict[Node, list[PodRecord]] = {}
        for pod in self._topology.pods():
            node = node_of(pod.metric_labels)
            if node is not None:
                found.setdefault(node, []).append(pod)
        return found

    def _objects_by_node(self) -> Iterable[tuple[Node, Document]]:
        for kind in ("Deployment", "StatefulSet", "DaemonSet"):
            for resource in self._parts.objects.list(kind):
                metadata = resource["metadata"]
                yield Node(metadata["namespace"], kind.lower(), metadata["name"]), resource

    async def _links(self) -> _Links:
        whole, lately = await self._scraper.links(WINDOW, _LATELY)
        return {ends: (link, lately.get(ends, link)) for ends, link in whole.items()}

    def _summary(
        self,
        node: Node,
        pods: list[PodRecord],
        wanted: int | None,
        sums: Mapping[tuple[Node, str], Counts],
    ) -> Document:
        modes = {entry.mtls_mode for pod in pods if (entry := self._settings_of(pod.key)) is not None}
        return {
            "id": str(node),
            "namespace": node.namespace,
            "kind": node.kind,
            "name": node.name,
            "pods": len(pods) if wanted is None else max(wanted, len(pods)),
            "ready": sum(pod.ready for pod in pods),
            "meshed": bool(pods) and all(pod.meshed for pod in pods),
            "mtls_modes": sorted(modes),
            "in": _numbers(sums.get((node, "from"))),
            "out": _numbers(sums.get((node, "to"))),
        }

    def _settings_of(self, pod: ObjectKey) -> Settings | None:
        entry = self._parts.plane.own_state(pod).get("settings")
        return entry if isinstance(entry, Settings) else None

    def _edges(self, found: _Links) -> list[Document]:
        circuits = self._circuits()
        splits = self._splits()
        quiet = {
            ends: (Link(), Link())
            for ends, states in circuits.items()
            if ends not in found and any(state["open"] or state["half_open"] for state in states)
        }
        return [
            {
                "from": str(source),
                "to": str(destination),
                "services": sorted(link.services),
                **(_numbers(link.counts) or {"rate": 0.0, "success": None, **dict.fromkeys(_QUANTILES)}),
                "tcp": _connections(link.tcp),
                "security": security(link) if security(lately) == "unknown" else security(lately),
                "splits": [part for service in sorted(link.services) for part in splits.get(service, ())],
                "circuits": circuits.get((source, destination), []),
            }
            for (source, destination), (link, lately) in sorted({**found, **quiet}.items(), key=lambda item: item[0])
        ]

    def _splits(self) -> dict[str, list[Document]]:
        """What splits give to each backend ("namespace/service")."""
        found: dict[str, list[Document]] = {}
        policies = self._parts.plane.catalog.policies.splits
        for policy in (policies.get(key) for key in sorted(policies.keys())):
            if policy is None:
                continue
            namespace, spec = policy.metadata.namespace, policy.spec
            if policies.effective(ObjectKey(Service.KIND, namespace, spec.service)) is not policy:
                continue  # an older one counts
            whole = sum(max(backend.weight, 0) for backend in spec.backends)
            for backend in spec.backends:
                found.setdefault(f"{namespace}/{backend.service}", []).append(
                    {
                        "split": f"{namespace}/{policy.metadata.name}",
                        "root": spec.service,
                        "service": backend.service,
                        "weight": max(backend.weight, 0),
                        "whole": whole,
                        "matches": bool(spec.matches),
                    }
                )
        return found

    def _circuits(self) -> dict[tuple[Node, Node], list[Document]]:
        """The circuits between two nodes: in how many of the callers' sidecars each is in which state."""
        found: dict[tuple[Node, Node], dict[tuple[str, str], Document]] = {}
        for states in self._scraper.breakers.values():
            for (_, pairs), value in states.items():
                labels = dict(pairs)
                caller, upstream = node_of(labels), labels.get("upstream", "")
                state = _CIRCUITS.get(value, "closed")
                for called in self._behind(upstream):
                    if caller is None or called == caller:
                        continue
                    circuit = found.setdefault((caller, called), {}).setdefault(
                        (labels.get("breaker", ""), upstream),
                        {"breaker": labels.get("breaker", ""), "service": upstream}
                        | dict.fromkeys(("closed", "open", "half_open"), 0),
                    )
                    circuit[state] += 1
        return {ends: [by_name[name] for name in sorted(by_name)] for ends, by_name in found.items()}

    def _behind(self, upstream: str) -> set[Node]:
        """The workloads behind "namespace/service:port"."""
        namespace, _, rest = upstream.partition("/")
        topology = self._topology
        keys = topology.pods_behind(ObjectKey(Service.KIND, namespace, rest.rpartition(":")[0]))
        pods = (topology.pod(key) for key in keys)
        return {node for pod in pods if pod is not None and (node := node_of(pod.metric_labels)) is not None}

    def _members(self, keys: AbstractSet[ObjectKey]) -> list[Document]:
        """The pods of a workload."""
        identities = {(each["namespace"], each["pod"]): each for each in self._identities()}
        members = []
        for key in sorted(keys):
            pod = self._parts.objects.get(key)
            if pod is None:
                continue
            status, workload = pod.get("status", {}), self._topology.pod(key)
            held = identities.get((key.namespace, key.name), {})
            uid, own = pod["metadata"]["uid"], self._settings_of(key)
            members.append(
                {
                    "name": key.name,
                    "phase": _phase(pod),
                    "ready": is_ready(pod),
                    "restarts": sum(each.get("restartCount", 0) for each in status.get("containerStatuses", [])),
                    "started": pod["metadata"]["creationTimestamp"],
                    "addresses": [each["ip"] for each in status.get("podIPs", [])],
                    "meshed": workload is not None and workload.meshed,
                    "mtls_mode": None if own is None else own.mtls_mode,
                    "silent": self._scraper.silent.get(uid),
                    "identity": {
                        name: held[name]
                        for name in ("spiffe_id", "dns_names", "serial", "issuer", "not_after", "renew_at")
                        if held.get(name)
                    },
                }
            )
        return members

    def _policies(self, node: Node, pods: AbstractSet[ObjectKey], found: _Links) -> list[Document]:
        """The policies that concern a workload: its own sidecars, and where calls of it and to it go."""
        topology, policies = self._topology, self._parts.plane.catalog.policies
        keys = set().union(*(self._parts.plane.policies_at(pod) for pod in pods))
        ends = {node, *(called for caller, called in found if caller == node)}
        near = {service for end in ends for key in self._keys_of(end) for service in topology.services_of(key)}
        diversions = (policies.splits, policies.breakers)
        concerned = {key for service in near for kind in diversions for key in kind.naming(service)}
        far = policies.splits.keys() | policies.breakers.keys()
        told = (self._policy(key) for key in sorted((keys - far) | concerned))
        return [policy for policy in told if policy is not None]

    def _keys_of(self, node: Node) -> AbstractSet[ObjectKey]:
        kind = _KINDS.get(node.kind)
        found: AbstractSet[ObjectKey] = set()
        if kind is not None:
            found = self._topology.pods_behind(ObjectKey(kind, node.namespace, node.name))
        return found

    def _policy(self, key: ObjectKey) -> Document | None:
        resource = self._parts.objects.get(key)
        if resource is None:
            return None
        conditions = resource.get("status", {}).get("conditions", [])
        condition: Document = next((each for each in conditions if each.get("type") == "InForce"), {})
        return {
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
            "in_force": condition.get("status", "Unknown"),
            "reason": condition.get("reason", ""),
            "message": condition.get("message", ""),
            "says": _says(resource),
        }


def _pods_wanted(resource: Document) -> int:
    """How many pods a workload wants; of a DaemonSet as many as there are."""
    return 0 if resource["kind"] == "DaemonSet" else int(resource["spec"].get("replicas", 1))


def _sums(found: _Links) -> dict[tuple[Node, str], Counts]:
    sums: dict[tuple[Node, str], Counts] = {}
    for (source, destination), (link, _) in found.items():
        for end in ((source, "to"), (destination, "from")):
            sums.setdefault(end, Counts()).add(link.counts)
    return sums


def _numbers(counts: Counts | None) -> Document | None:
    if counts is None or (requests := counts.success + counts.failure) <= 0:
        return None
    quantiles = {name: counts.quantile(q) for name, q in _QUANTILES.items()}
    return {"rate": requests, "success": counts.success / requests, **quantiles}


def _connections(tcp: Connections) -> Document | None:
    if tcp.tried <= 0 and tcp.sent + tcp.received <= 0:
        return None
    success = max(0.0, 1 - tcp.failed / tcp.tried) if tcp.tried > 0 else None
    return {"rate": tcp.tried, "success": success, "bytes": tcp.sent + tcp.received}


def _concerns(event: Document, node: Node, pods: AbstractSet[ObjectKey]) -> bool:
    about = event["involvedObject"]
    key = ObjectKey(about["kind"], about["namespace"], about["name"])
    return key in pods or key == ObjectKey(_KINDS.get(node.kind, ""), node.namespace, node.name)


def _phase(pod: Document) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    return str(pod.get("status", {}).get("phase", "Pending"))


def _says(resource: Document) -> str:
    """The gist of a policy."""
    spec = resource.get("spec", {})
    match resource["kind"]:
        case TrafficSplit.KIND:
            parts = ", ".join(f"{each['service']} {each['weight']}" for each in spec.get("backends", []))
            return f"{spec.get('service', '')} → {parts}"
        case "CircuitBreaker":
            return f"{spec.get('errors')} errors within {spec.get('timeoutSeconds')} s open it"
        case "RateLimit":
            return str(spec.get("rate", ""))
        case "TrafficTarget":
            return "from " + ", ".join(each.get("name", "") for each in spec.get("sources", []))
    return ""


def _json(content: object) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")
