"""What a process of the control plane tells whoever watches over it.

| request | |
|---|---|
| GET `/metrics` | what prometheus_client's registry of the process has, and what is measured when it is asked for |
| GET `/healthz` | 200 as long as the event loop turns |
| GET `/readyz` | 200 when every part is ready, else 503; `{"ready", "parts": {NAME: "ok" or the reason why not}}` |

Counters are module-level objects of prometheus_client beside what they count; nothing here knows of them.
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

from nginx_mesh.api.responses import json_response
from nginx_mesh.api.values import HostPort
from nginx_mesh.version import version

log = logging.getLogger(__name__)

_PART_SECONDS = 5.0
_OK = "ok"

disable_created_metrics()  # type: ignore[no-untyped-call]
_build = Gauge("nginx_mesh_build_info", "Which release this process is of.", ["version"])
_build.labels(version()).set(1)

Part = Callable[[], str | Awaitable[str]]
"""Says why a part of the process is not ready, "" when it is."""


class Endpoints:
    """Routes for an aiohttp application. `parts` are asked at every `/readyz`, `collectors` at every `/metrics`."""

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
        """Why parts are not ready, by their names."""
        reasons = await asyncio.gather(*(_reason(name, part) for name, part in self._parts.items()))
        return {name: reason for name, reason in zip(self._parts, reasons, strict=True) if reason}

    async def _metrics(self, _: web.Request) -> web.Response:
        everything = _Joined((REGISTRY, *self._collectors))
        return web.Response(body=generate_latest(everything), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        return json_response({"status": _OK})

    async def _readyz(self, _: web.Request) -> web.Response:
        unready = await self.unready()
        parts = {name: unready.get(name, _OK) for name in self._parts}
        return json_response({"ready": not unready, "parts": parts}, 503 if unready else 200)


async def listen(endpoints: Endpoints, address: HostPort | Path) -> web.AppRunner:
    """Serve these alone at `host:port` or a unix socket, until the runner is cleaned up. Raises OSError."""
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
            said = part()
            return await said if inspect.isawaitable(said) else said
    except TimeoutError:
        return f"it says nothing within {_PART_SECONDS:.0f} s"
    except Exception as error:
        log.exception("cannot tell whether %s is ready", name)
        return f"cannot be told: {error or type(error).__name__}"
