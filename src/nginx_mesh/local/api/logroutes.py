"""The part of the API that reads the logs of containers, and follows them while they are written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.status import StatusError
from nginx_mesh.local.logs import earlier, read_from, start_of_tail

from .containers import check_container
from .http import OBJECT_PATHS, key_of, number
from .objects import Objects

_POLL_SECONDS = 0.2


class LogRoutes:
    """Serves the logs of pods. `directory` returns where the pod with a uid has its logs, `CONTAINER.log` each."""

    def __init__(self, objects: Objects, directory: Callable[[str], Path]) -> None:
        self._objects = objects
        self._directory = directory

    def routes(self) -> list[web.RouteDef]:
        """The routes, for `app.add_routes`."""
        return [web.get(path + "/{name}/log", self._get_log) for path in OBJECT_PATHS]

    async def _get_log(self, request: web.Request) -> web.StreamResponse:
        key = key_of(request)
        if key.kind != "Pod":
            raise StatusError("BadRequest", "only pods have logs")
        pod, container = self._objects.get(key), request.query.get("container", "")
        check_container(pod, container, init=True)
        path = self._directory(pod["metadata"]["uid"]) / f"{container}.log"
        tail = number(request, "tailLines")
        follow = request.query.get("follow") == "true"
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        before = await asyncio.to_thread(earlier, path, tail)
        position = 0 if tail is None else await asyncio.to_thread(start_of_tail, path, tail)
        if before is not None:
            await self._send_file(response, *before)
        position = await self._send_file(response, path, position)
        while follow and self._may_grow(key):
            await asyncio.sleep(_POLL_SECONDS)
            position = await self._send_file(response, path, position)
        await response.write_eof()
        return response

    async def _send_file(self, response: web.StreamResponse, path: Path, position: int) -> int:
        """Send the content of a file from a position on; returns the position after it."""
        while True:
            position, chunk = await asyncio.to_thread(read_from, path, position)
            if not chunk:
                return position
            await response.write(chunk)

    def _may_grow(self, pod: ObjectKey) -> bool:
        """Whether a pod's containers may still write to their logs."""
        try:
            status = self._objects.get(pod).get("status", {})
        except StatusError:
            return False
        return status.get("phase") not in ("Succeeded", "Failed")
