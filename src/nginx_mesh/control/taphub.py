"""GET `/mesh/tap` shows live requests as lines of JSON, for as long as the viewer keeps the connection open.

The parameters are those of tapquery.py. Sidecars are told what to report for a few seconds at a time, again and again,
so that none goes on reporting for a viewer or a control plane that has died. Every caller of the control plane's API
may view.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.catalog.topology import Topology
from nginx_mesh.protocol.control import Tap
from nginx_mesh.protocol.report import Report

from .tapquery import MAX_RPS, TapQuery, host_of, read_query

log = logging.getLogger(__name__)

_RENEW_SECONDS = 2.0
_EXPIRE_SECONDS = 6
_QUEUE = 1000

TellSidecars = Callable[[Mapping[ObjectKey, Tap]], Awaitable[None]]
"""Tells the sidecars of pods which requests to report."""


@dataclass(eq=False, slots=True)
class _Viewer:
    """`budget` is how many requests may be shown now; it fills at the query's rate. `skipped` counts those over it."""

    query: TapQuery
    lines: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(_QUEUE))
    skipped: int = 0
    budget: float = 0.0
    at: float = 0.0

    def within_rate(self, now: float) -> bool:
        """Whether one more request may be shown."""
        rate = self.query.max_rps
        self.budget = min(float(rate), self.budget + (now - self.at) * rate)
        self.at = now
        if self.budget < 1:
            return False
        self.budget -= 1
        return True


class TapHub:
    """The viewers, and the sidecars that report for them. `topology` is that of the mesh's catalog."""

    def __init__(
        self, topology: Topology, tell_sidecars: TellSidecars, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._topology = topology
        self._tell_sidecars = tell_sidecars
        self._clock = clock
        self._viewers: set[_Viewer] = set()
        self._reporting: set[ObjectKey] = set()
        self._viewers_changed = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [web.get("/mesh/tap", self._stream)]

    async def run(self) -> None:
        """Tell sidecars again and again what to report, until cancelled."""
        try:
            while True:
                self._viewers_changed.clear()
                await self._tell()
                if not self._viewers:
                    await self._viewers_changed.wait()
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RENEW_SECONDS):
                        await self._viewers_changed.wait()
        finally:
            self._viewers.clear()

    def received(self, pod: ObjectKey, spiffe_id: str, report: Report) -> None:
        """Show the report of a pod's sidecar to all viewers that want it."""
        for viewer in self._viewers:
            query = viewer.query
            if pod in self._topology.pods_behind(query.of) and query.matches(report, self._topology):
                if viewer.within_rate(self._clock()) and not viewer.lines.full():
                    viewer.lines.put_nowait(orjson.dumps(self._line(pod, spiffe_id, report)) + b"\n")
                else:
                    viewer.skipped += 1

    async def _tell(self) -> None:
        """Tell the sidecars of watched pods what to report, and those that are watched no longer to stop."""
        wanted: dict[ObjectKey, Tap] = {}
        for viewer in self._viewers:
            tap = viewer.query.tap(self._topology, _EXPIRE_SECONDS)
            for pod in self._topology.pods_behind(viewer.query.of):
                wanted[pod] = tap if pod not in wanted else _covering(wanted[pod], tap)
        ended = dict.fromkeys(self._reporting - wanted.keys(), Tap(seconds=0, max_rps=1))
        self._reporting = set(wanted)
        await self._tell_sidecars(wanted | ended)

    def _line(self, pod: ObjectKey, spiffe_id: str, report: Report) -> Resource:
        other = report.client if report.server else host_of(report.upstream)
        line: Resource = {
            "time": report.start_us / 1e6,
            "direction": "in" if report.server else "out",
            "pod": f"{pod.namespace}/{pod.name}",
            "peer": self._pod_name(other) or other or report.destination,
            "method": report.method,
            "authority": report.authority,
            "path": report.path,
            "status": report.status,
            "latencyMs": report.duration_us / 1000,
            "mtls": bool(report.mtls),
            "clientId": report.peer_id if report.server else spiffe_id,
            "serverId": spiffe_id if report.server else report.peer_id,
        }
        if report.grpc:
            line["grpcStatus"] = report.grpc_status
        more = {
            "policy": report.policy,
            "rateLimit": report.limited_by,
            "reason": report.reason,
            "cluster": report.cluster,
            "traceId": report.trace,
        }
        return line | {name: value for name, value in more.items() if value}

    def _pod_name(self, address: str) -> str:
        """The pod that has an address, "" when none has."""
        pod = self._topology.pod_with(address)
        return "" if pod is None else f"{pod.key.namespace}/{pod.key.name}"

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request.query, self._topology)
        viewer = _Viewer(query, budget=float(query.max_rps), at=self._clock())
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        self._viewers.add(viewer)
        await self._tell()
        self._viewers_changed.set()
        log.info("a viewer watches the requests of %s", query.of)
        await response.prepare(request)
        try:
            while True:
                try:
                    async with asyncio.timeout(_RENEW_SECONDS):
                        line = await viewer.lines.get()
                except TimeoutError:
                    line = b"\n"  # a write is the only way to notice that the viewer is gone
                if viewer.skipped:
                    line += orjson.dumps({"skipped": viewer.skipped}) + b"\n"
                    viewer.skipped = 0
                await response.write(line)
        except ConnectionError:
            return response
        finally:
            self._viewers.discard(viewer)
            self._viewers_changed.set()
            log.info("a viewer of the requests of %s is gone", query.of)


def _covering(one: Tap, other: Tap) -> Tap:
    """A tap that reports all that either of two reports."""
    if one == other:
        return one
    return Tap(seconds=_EXPIRE_SECONDS, max_rps=min(MAX_RPS, one.max_rps + other.max_rps))
