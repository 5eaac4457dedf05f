"""Serves the metrics of a local mesh to a Prometheus on the machine's own network, which cannot reach the pods.

| request | |
|---|---|
| GET `/targets` | the sidecars for http_sd_configs; each is scraped here, and `instance` is its own address |
| GET `/pods/NAMESPACE/NAME/metrics` | the metrics of a sidecar |
| GET `/metrics` | the metrics of the mesh's daemon |
| GET `/healthz` | |
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from nginx_mesh.api.values import HostPort

_SECONDS = 10.0


async def serve(socket: Path, address: HostPort, listening: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT what the daemon's API at `socket` tells. Raises OSError when it cannot listen."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with aiohttp.ClientSession(
        "http://mesh",
        connector=aiohttp.UnixConnector(str(socket)),
        timeout=aiohttp.ClientTimeout(total=_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as mesh:
        runner = web.AppRunner(_application(mesh, str(address)), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, address.host, address.port).start()
            listening()
            await stopped.wait()
        finally:
            await runner.cleanup()


def _application(mesh: aiohttp.ClientSession, here: str) -> web.Application:
    async def targets(_request: web.Request) -> web.Response:
        _, content = await _ask(mesh, "/mesh/targets")
        return web.json_response([_scraped_here(group, here) for group in json.loads(content)])

    async def metrics(request: web.Request) -> web.Response:
        content_type, content = await _ask(mesh, f"/mesh{request.rel_url.raw_path}")
        return web.Response(body=content, headers={"Content-Type": content_type})

    async def own_metrics(_: web.Request) -> web.Response:
        content_type, content = await _ask(mesh, "/metrics")
        return web.Response(body=content, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_get("/targets", targets)
    app.router.add_get("/pods/{namespace}/{name}/metrics", metrics)
    app.router.add_get("/metrics", own_metrics)
    app.router.add_get("/healthz", healthz)
    return app


async def _ask(mesh: aiohttp.ClientSession, path: str) -> tuple[str, bytes]:
    """Return the type and content of the daemon's answer; raises the answer that is ours when it gives none."""
    try:
        async with mesh.get(path) as answer:
            content = await answer.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise web.HTTPServiceUnavailable(text=f"the daemon of the mesh does not answer: {error}") from None
    if answer.status == 404:
        raise web.HTTPNotFound
    if answer.status != 200:
        raise web.HTTPServiceUnavailable(body=content)
    return answer.headers["Content-Type"], content


def _scraped_here(group: Any, here: str) -> Any:
    (address,), labels = group["targets"], group["labels"]
    path = f"/pods/{labels['namespace']}/{labels['pod']}/metrics"
    return {"targets": [here], "labels": {**labels, "instance": address, "__metrics_path__": path}}
