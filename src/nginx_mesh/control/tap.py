"""GET `/mesh/tap`: live requests as lines of JSON, for who looks, as long as he looks.

| parameter | |
|---|---|
| `of` | the workload to watch: [NAMESPACE/][KIND/]NAME |
| `to`, `from` | only what goes to, or comes from, this workload or Service |
| `namespace` | of names that say none |
| `method`, `path_prefix`, `status` | only these: a method, the beginning of a path, a status or a class such as 5xx |
| `max_rps` | requests a second at most, 1 to 1000 |

Sidecars are told what to report for a few seconds at a time, again and again, so that none goes on for a daemon or
a command that has died. Who may ask is who may open the daemon's socket: root.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from nginx_mesh.api import registry
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.status import StatusError
from nginx_mesh.api.workloadkinds import WORKLOADS
from nginx_mesh.catalog.topology import Topology
from nginx_mesh.protocol.control import Tap
from nginx_mesh.protocol.report import Report

log = logging.getLogger(__name__)

MAX_RPS = 1000
WATCHED = (*WORKLOADS, "Service")

_RENEW_SECONDS = 2.0
_EXPIRE_SECONDS = 6
_QUEUE = 1000
_PEERS = 500
_STATUS = re.compile(r"([1-5])xx|([1-5][0-9][0-9])")

Tell = Callable[[Mapping[ObjectKey, Tap]], Awaitable[None]]
"""Tells the sidecars of pods which requests to report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to see. `to` and `origin` are the other side of what `of` receives and sends."""

    of: ObjectKey
    to: ObjectKey | None = None
    origin: ObjectKey | None = None
    method: str = ""
    path: str = ""
    status: tuple[int, int] = (0, 999)
    max_rps: int = 100

    def matches(self, report: Report) -> bool:
        """Whether it is of the kind that is wanted, whoever the sides are."""
        low, high = self.status
        return self.method in ("", report.method) and report.path.startswith(self.path) and low <= report.status <= high


@dataclass(eq=False, slots=True)
class _Viewer:
    wish: Wish
    lines: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(_QUEUE))
    skipped: int = 0
    budget: float = 0.0
    at: float = 0.0

    def may(self, now: float) -> bool:
        """Whether one more is within the rate that was asked for."""
        rate = self.wish.max_rps
        self.budget = min(float(rate), self.budget + (now - self.at) * rate)
        self.at = now
        if self.budget < 1:
            return False
        self.budget -= 1
        return True


class TapHub:
    """Viewers, and the sidecars that report for them. `topology` is that of the mesh's catalog."""

    def __init__(self, topology: Topology, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._topology = topology
        self._tell_sidecars = tell
        self._clock = clock
        self._viewers: set[_Viewer] = set()
        self._told: set[ObjectKey] = set()
        self._wake = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [web.get("/mesh/tap", self._stream)]

    async def run(self) -> None:
        """Keep sidecars told, until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._tell(self._wanted())
                if not self._viewers:
                    await self._wake.wait()
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RENEW_SECONDS):
                        await self._wake.wait()
        finally:
            self._viewers.clear()

    def received(self, pod: ObjectKey, spiffe_id: str, report: Report) -> None:
        """Show a report to all who want it."""
        for viewer in self._viewers:
            if pod in self._topology.pods_behind(viewer.wish.of) and self._shown(viewer.wish, report):
                if viewer.may(self._clock()) and not viewer.lines.full():
                    viewer.lines.put_nowait(orjson.dumps(self._line(pod, spiffe_id, report)) + b"\n")
                else:
                    viewer.skipped += 1

    def _shown(self, wish: Wish, report: Report) -> bool:
        other = wish.origin if report.server else wish.to
        if (wish.origin is not None or wish.to is not None) and other is None:
            return False
        if not wish.matches(report):
            return False
        if other is None:
            return True
        addresses = self._addresses(other)
        seen = (report.client,) if report.server else (_host(report.upstream), _host(report.destination))
        return any(address in addresses for address in seen)

    def _wanted(self) -> dict[ObjectKey, Tap]:
        """What each pod's sidecar is to report."""
        wanted: dict[ObjectKey, Tap] = {}
        for viewer in self._viewers:
            tap = self._tap(viewer.wish)
            for pod in self._topology.pods_behind(viewer.wish.of):
                wanted[pod] = tap if pod not in wanted else _both(wanted[pod], tap)
        return wanted

    def _tap(self, wish: Wish) -> Tap:
        low, high = wish.status
        peers: set[str] = set()
        for other in (wish.to, wish.origin):
            peers |= set() if other is None else self._addresses(other)
        return Tap(
            seconds=_EXPIRE_SECONDS,
            max_rps=wish.max_rps,
            method=wish.method,
            path=wish.path,
            lowest=low,
            highest=high,
            peers=sorted(peers) if len(peers) <= _PEERS else [],
        )

    def _addresses(self, place: ObjectKey) -> AbstractSet[str]:
        """Of the pods behind it, and those that a Service is dialled at."""
        service = self._topology.service(place)
        pods = [self._topology.pod(key) for key in self._topology.pods_behind(place)]
        found = {address for pod in pods if pod is not None for address in pod.addresses}
        return found if service is None else found.union(service.vips)

    async def _tell(self, wanted: dict[ObjectKey, Tap]) -> None:
        ended = dict.fromkeys(self._told - wanted.keys(), Tap(seconds=0, max_rps=1))
        self._told = set(wanted)
        await self._tell_sidecars(wanted | ended)

    def _line(self, pod: ObjectKey, spiffe_id: str, report: Report) -> Resource:
        other = report.client if report.server else _host(report.upstream)
        line: Resource = {
            "time": report.start_us / 1e6,
            "direction": "in" if report.server else "out",
            "pod": f"{pod.namespace}/{pod.name}",
            "peer": self._name(other) or other or report.destination,
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

    def _name(self, address: str) -> str:
        """The pod that has an address."""
        pod = self._topology.pod_with(address)
        return "" if pod is None else f"{pod.key.namespace}/{pod.key.name}"

    def _find(self, parameter: str, name: str, namespace: str) -> ObjectKey:
        """The workload or Service of a name: NAME, KIND/NAME, NAMESPACE/NAME or NAMESPACE/KIND/NAME."""
        parts = name.split("/")
        if not all(parts) or len(parts) > 3:
            raise StatusError("BadRequest", f'{parameter}: "{name}" is not [NAMESPACE/][KIND/]NAME')
        kinds: Iterable[str] = WATCHED
        if len(parts) > 1 and (kind := registry.find(parts[-2])) is not None:
            if kind.KIND not in WATCHED:
                raise StatusError("BadRequest", f"{parameter}: a {kind.KIND} has no requests")
            kinds = (kind.KIND,)
            parts.pop(-2)
        if len(parts) > 2:
            raise StatusError("BadRequest", f'{parameter}: there is no kind "{parts[-2]}"')
        where, last = (parts[0], parts[1]) if len(parts) == 2 else (namespace, parts[0])
        for kind_name in kinds:
            key = ObjectKey(kind_name, where, last)
            if self._topology.pods_behind(key):
                return key
        raise StatusError("NotFound", f"{parameter}: there is no pod of {where}/{last}; try local get pods -A")

    def _wish(self, request: web.Request) -> Wish:
        query = request.query
        namespace = query.get("namespace") or "default"

        def find(parameter: str) -> ObjectKey | None:
            return self._find(parameter, query[parameter], namespace) if query.get(parameter) else None

        of = find("of")
        if of is None:
            raise StatusError("BadRequest", "of: is missing")
        rate = query.get("max_rps", "100")
        if not re.fullmatch("[0-9]{1,4}", rate) or not 1 <= int(rate) <= MAX_RPS:
            raise StatusError("BadRequest", f'max_rps: "{rate}" is not a number from 1 to {MAX_RPS}')
        return Wish(
            of=of,
            to=find("to"),
            origin=find("from"),
            method=query.get("method", "").upper()[:64],
            path=query.get("path_prefix", "")[:1024],
            status=_statuses(query.get("status", "")),
            max_rps=int(rate),
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        wish = self._wish(request)
        viewer = _Viewer(wish, budget=float(wish.max_rps), at=self._clock())
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        self._viewers.add(viewer)
        await self._tell(self._wanted())
        self._wake.set()
        log.info("somebody watches the requests of %s", wish.of)
        await response.prepare(request)
        try:
            while True:
                try:
                    async with asyncio.timeout(_RENEW_SECONDS):
                        line = await viewer.lines.get()
                except TimeoutError:
                    line = b"\n"  # only to hear whether somebody is still there
                if viewer.skipped:
                    line += orjson.dumps({"skipped": viewer.skipped}) + b"\n"
                    viewer.skipped = 0
                await response.write(line)
        except ConnectionError:
            return response
        finally:
            self._viewers.discard(viewer)
            self._wake.set()
            log.info("the requests of %s are watched no more", wish.of)


def _both(one: Tap, other: Tap) -> Tap:
    """What covers two wishes."""
    if one == other:
        return one
    return Tap(seconds=_EXPIRE_SECONDS, max_rps=min(MAX_RPS, one.max_rps + other.max_rps))


def _statuses(text: str) -> tuple[int, int]:
    """The lowest and the highest of a status or a class of them."""
    if not text:
        return 0, 999
    found = _STATUS.fullmatch(text.lower())
    if found is None:
        raise StatusError("BadRequest", f'status: "{text}" is neither a status such as 404 nor a class such as 5xx')
    if found[1]:
        return int(found[1]) * 100, int(found[1]) * 100 + 99
    return int(found[2]), int(found[2])


def _host(address: str) -> str:
    """The IP of "ip:port" or "[ip]:port"."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")
