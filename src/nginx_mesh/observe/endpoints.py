"""HTTP endpoints for monitoring a process of the control plane.

| request | |
|---|---|
| GET `/metrics` | prometheus_client's registry of the process, and the metrics of further collectors |
| GET `/healthz` | 200 while the event loop runs |
| GET `/readyz` | 200 when every part is ready, else 503; `{"ready", "parts": {NAME: "ok" or the reason why not}}` |

Each module that counts something has its counters as module-level objects of prometheus_client.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Gauge, Metric, disable_created_metrics, generate_latest
from prometheus_client.registry import Collector

from nginx_mesh.api.values import HostPort
from nginx_mesh.version import version

from .responses import json_response

log = logging.getLogger(__name__)

_PART_SECONDS = 5.0
_OK = "ok"

disable_created_metrics()  # type: ignore[no-untyped-call]
_build = Gauge("nginx_mesh_build_info", "Which release this process is of.", ["version"])
_build.labels(version()).set(1)

Part = Callable[[], str | Awaitable[str]]
"""A readiness check of a part of the process: gives the reason why it is not ready, "" when it is."""


class MonitoringEndpoints:
    """Routes for an aiohttp application. `/readyz` runs all `parts`, `/metrics` runs all `collectors`."""

    def __init__(self, parts: Mapping[str, Part], collectors: Iterable[Collector] = ()) -> None:
        self._parts = dict(parts)
        self._collectors = tuple(collectors)

    def routes(self) -> list[web.RouteDef]:
        """For `app.add_routes`."""
        return [
            web.get("/metrics", self._metrics),
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
        ]

    async def unready(self) -> dict[str, str]:
        """The parts that are not ready, by name, with the reasons."""
        reasons = await asyncio.gather(*(_reason(name, part) for name, part in self._parts.items()))
        return {name: reason for name, reason in zip(self._parts, reasons, strict=True) if reason}

    async def _metrics(self, _: web.Request) -> web.Response:
        collectors = _Joined((REGISTRY, *self._collectors))
        return web.Response(body=generate_latest(collectors), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        return json_response({"status": _OK})

    async def _readyz(self, _: web.Request) -> web.Response:
        unready = await self.unready()
        parts = {name: unready.get(name, _OK) for name in self._parts}
        return json_response({"ready": not unready, "parts": parts}, 503 if unready else 200)


async def listen(endpoints: MonitoringEndpoints, address: HostPort | Path) -> web.AppRunner:
    """Serve only these endpoints, at `host:port` or a unix socket, until the runner is cleaned up. Raises OSError."""
    app = web.Application()
    app.add_routes(endpoints.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site: web.BaseSite
    if isinstance(address, Path):
        address.unlink(missing_ok=True)
        site = web.UnixSite(runner, str(address))
    else:
        site = web.TCPSite(runner, address.host, address.port)
    try:
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


class _Joined(Collector):
    """Several collectors as one."""

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


async def _reason(name: str, part: Part) -> str:
    try:
        async with asyncio.timeout(_PART_SECONDS):
            reason = part()
            return await reason if inspect.isawaitable(reason) else reason
    except TimeoutError:
        return f"it says nothing within {_PART_SECONDS:.0f} s"
    except Exception as error:
        log.exception("cannot tell whether %s is ready", name)
        return f"cannot be told: {error or type(error).__name__}"
