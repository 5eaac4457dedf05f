"""Where the reports of a node's sidecars go.

Requests of sampled traces become spans, and go to the collector that the settings name. Requests that somebody watches
(`nginx-meshctl tap`) go to the control plane.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.protocol.control import SIDECAR_UID
from nginx_mesh.protocol.report import Report

from .reports import ReportSockets

if TYPE_CHECKING:
    from .export import SpanExport
    from .spans import Origin

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 1.0
_EARLY = 1000

FindWorkload = Callable[[str], tuple[PodRecord, str] | None]
"""Finds the pod with a uid, and its SPIFFE ID; None when there is no such meshed pod."""

Tapped = Callable[[ObjectKey, str, Report], None]
"""Is told of requests that somebody watches: the pod whose sidecar reports the request, its SPIFFE ID, the report."""

Resolve = Callable[[str], str | None]
"""An IP address of a host, by the names that the mesh's workloads know; None when there is none."""


class Reporting:
    """Listens to the sidecars of the pods whose uids `live` gives.

    `node` is this node's name. `socket_directory` gives the directory that the pod with a uid shares with the node.
    `resolver` makes what finds the collector; it is called when there is first need of it.
    """

    def __init__(
        self,
        node: str,
        socket_directory: Callable[[str], Path],
        *,
        live: Callable[[], AbstractSet[str]],
        find: FindWorkload,
        tapped: Tapped,
        resolver: Callable[[], Resolve],
    ) -> None:
        self._node = node
        self._socket_directory = socket_directory
        self._live = live
        self._find = find
        self._tapped = tapped
        self._resolver = resolver
        self._sockets = ReportSockets(self._received)
        self._settings: MeshSettings | None = None
        self._changed = asyncio.Event()
        self._export: SpanExport | None = None
        # Reports that come while the exporter is being made.
        self._early: deque[tuple[str, Report]] = deque(maxlen=_EARLY)
        self._origins: dict[str, tuple[PodRecord, str, Origin]] = {}

    def configure(self, settings: MeshSettings) -> None:
        """Apply the mesh's settings, live."""
        self._settings = settings
        if self._export is not None:
            self._export.target = settings.otlp
        self._changed.set()

    def open(self, uid: str) -> None:
        """Listen to the sidecar of the pod with this uid."""
        try:
            self._sockets.open(uid, self._socket_directory(uid), SIDECAR_UID)
        except OSError as error:
            log.warning("the sidecar of pod %s cannot report: %s", uid, error)

    async def run(self) -> None:
        """Follow the pods that come and go, until cancelled."""
        while True:
            live = self._live()
            self._sockets.retain(set(live))
            self._origins = {uid: known for uid, known in self._origins.items() if uid in live}
            for uid in live:
                self.open(uid)
            await self._prepare()
            self._changed.clear()
            try:
                async with asyncio.timeout(_INTERVAL_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def close(self) -> None:
        """Close the sockets. Spans that are on their way to the collector are dropped."""
        self._sockets.retain(set())
        if self._export is not None:
            await asyncio.to_thread(self._export.close)

    async def _prepare(self) -> None:
        """Make the exporter when the settings first name a collector."""
        settings = self._settings
        if self._export is None and settings is not None and settings.otlp is not None:
            self._export = await asyncio.to_thread(_exporter, self._resolver())
            self._export.target = self._settings.otlp if self._settings is not None else None
            while self._early:
                self._trace(*self._early.popleft())

    def _received(self, uid: str, report: Report) -> None:
        if report.tapped and (found := self._find(uid)) is not None:
            self._tapped(found[0].key, found[1], report)
        if report.trace is not None:
            self._trace(uid, report)

    def _trace(self, uid: str, report: Report) -> None:
        if self._export is None:
            self._early.append((uid, report))
        elif self._export.target is not None and (made_by := self._origin(uid)) is not None:
            from .spans import span

            self._export.add(span(report, made_by))

    def _origin(self, uid: str) -> Origin | None:
        found = self._find(uid)
        if found is None:
            return None
        known = self._origins.get(uid)
        if known is None or known[:2] != found:
            from .spans import origin

            workload, spiffe_id = found
            self._origins[uid] = known = (workload, spiffe_id, origin(workload, uid, self._node, spiffe_id))
        return known[2]


def _exporter(resolve: Resolve) -> SpanExport:
    from .export import SpanExport

    return SpanExport(resolve)
