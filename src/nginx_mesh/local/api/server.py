"""The API of a local mesh: JSON over HTTP, objects under the paths that Kubernetes gives them.

| request | |
|---|---|
| GET, PATCH (merge patch), DELETE `/api/v1/…`, `/apis/GROUP/VERSION/…` | objects |
| GET `…/pods/NAME/log?container=&tailLines=&follow=true` | what a container wrote |
| GET `…/NAME/description` | an object with its events |
| POST `/mesh/apply`, `/mesh/delete` | manifests: `{"files": [{"source", "data" (base64)}], "namespace"}` |
| PATCH `/mesh/settings` | settings that may change while the mesh runs |
| GET `/mesh/readiness?object=kind/name,…&namespace=` | what is not ready and why |
| GET `/mesh/identities` | who has which SVID |
| POST `/mesh/explain` | what would become of a request: `explain.ExplainRequest` (explain/server.py) |
| GET `/mesh/identity` | where the authority is, and its trust domain |
| GET `/mesh/graph`, `/mesh/workloads/…`, `/mesh/events` | what the dashboard shows (overview/server.py) |
| GET `/mesh/targets`, `/mesh/pods/…/metrics` | the sidecars and what they count, for Prometheus (targets.py) |
| GET `/apis/metrics.smi-spec.io…` | traffic metrics (traffic/server.py) |
| `/identity/…` | the identity authority, where it is in this process (identity/server/admin.py) |
| GET `/mesh/tap?of=…` | live requests (tap.py) |
| GET `/mesh/status`, `/mesh/services`, …, `/metrics`, `/healthz`, `/readyz` | the mesh as a whole (operator.py) |

Errors are Kubernetes `Status` objects; `details` has one line per fault.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from nginx_mesh.api import registry
from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.status import StatusError
from nginx_mesh.explain.server import explain_handler
from nginx_mesh.local.node.logs import earlier, read_from, start_of_tail
from nginx_mesh.local.runtime import Runtime
from nginx_mesh.observe.responses import json_response, status_response
from nginx_mesh.traffic import documents
from nginx_mesh.traffic.server import TrafficMetrics

from .store import StoreError

log = logging.getLogger(__name__)

_MAX_BODY = 64 << 20
_LOG_POLL_SECONDS = 0.2
_CODES = {"BadRequest": 400, "Forbidden": 403, "NotFound": 404, "Conflict": 409, "Invalid": 422}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    data: str


class _Manifests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    files: list[_File]
    namespace: str = "default"

    def contents(self) -> list[tuple[str, bytes]]:
        """Where each file came from, and its bytes."""
        try:
            return [(file.source, base64.b64decode(file.data, validate=True)) for file in self.files]
        except binascii.Error as error:
            raise StatusError("BadRequest", f"data: {error}") from None


class ApiServer:
    """Serves a runtime on a unix socket that only root can open."""

    def __init__(self, runtime: Runtime, path: Path) -> None:
        self._runtime = runtime
        self._path = path
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[_statuses])
        app.add_routes(runtime.operator.routes())
        app.add_routes(runtime.tap.routes())
        app.router.add_post("/mesh/apply", self._apply)
        app.router.add_post("/mesh/delete", self._delete_all)
        app.router.add_patch("/mesh/settings", self._settings)
        app.router.add_get("/mesh/readiness", self._readiness)
        app.router.add_get("/mesh/identities", self._identities)
        app.router.add_get("/mesh/identity", self._identity)
        app.router.add_routes(runtime.overview.routes())
        app.router.add_post("/mesh/explain", explain_handler(runtime.explainer))
        app.router.add_routes(runtime.targets.routes())
        if runtime.identity.admin is not None:
            app.add_subapp("/identity", runtime.identity.admin)
        else:
            app.router.add_route("*", "/identity{rest:.*}", self._elsewhere)
        app.add_subapp(documents.ROOT, TrafficMetrics(runtime.traffic.flows).application())
        for prefix in ("/api/{version}", "/apis/{group}/{version}"):
            for scope in ("/namespaces/{namespace}/{plural}", "/{plural}"):
                app.router.add_get(prefix + scope, self._list)
                app.router.add_get(prefix + scope + "/{name}", self._get)
                app.router.add_patch(prefix + scope + "/{name}", self._patch)
                app.router.add_delete(prefix + scope + "/{name}", self._delete)
                app.router.add_get(prefix + scope + "/{name}/description", self._describe)
                app.router.add_get(prefix + scope + "/{name}/log", self._log)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        old = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        finally:
            os.umask(old)

    async def close(self) -> None:
        """Stop listening, and end what is being answered."""
        await self._runner.cleanup()

    async def _apply(self, request: web.Request) -> web.Response:
        manifests = await _body(request, _Manifests)
        outcomes = await self._runtime.objects.apply(manifests.contents(), manifests.namespace)
        return json_response(
            [
                {
                    "object": f"{registry.title(registry.by_kind(outcome.key.kind))}/{outcome.key.name}",
                    "outcome": outcome.what,
                    "warnings": outcome.warnings,
                }
                for outcome in outcomes
            ]
        )

    async def _delete_all(self, request: web.Request) -> web.Response:
        manifests = await _body(request, _Manifests)
        deleted = await self._runtime.objects.delete_all(
            manifests.contents(), manifests.namespace, _number(request, "gracePeriodSeconds")
        )
        return json_response(
            [{"kind": key.kind, "namespace": key.namespace, "name": key.name, "uid": uid} for key, uid in deleted]
        )

    async def _settings(self, request: web.Request) -> web.Response:
        self._runtime.objects.configure(await _body(request, dict))
        return json_response({})

    async def _readiness(self, request: web.Request) -> web.Response:
        namespace, only = request.query.get("namespace", ""), None
        if "object" in request.query:
            pairs = [part.partition("/") for part in request.query["object"].split(",")]
            only = {ObjectKey(_kind_named(title).KIND, namespace, name) for title, _, name in pairs}
        return json_response(self._runtime.readiness(only))

    async def _identities(self, _: web.Request) -> web.Response:
        return json_response(self._runtime.identities())

    async def _identity(self, _: web.Request) -> web.Response:
        return json_response(self._runtime.identity.where())

    async def _elsewhere(self, _: web.Request) -> web.Response:
        where = self._runtime.identity.where()
        place = where["address"] or f"with the provider {where['provider']}"
        raise StatusError("NotFound", f"the authority of this mesh is {place}: ask there, with --socket PATH")

    async def _list(self, request: web.Request) -> web.Response:
        kind = _kind_of(request)
        items = self._runtime.objects.of_kind(kind.KIND, request.match_info.get("namespace"))
        return json_response(
            {"apiVersion": kind.API_VERSION, "kind": f"{kind.KIND}List", "metadata": {}, "items": items}
        )

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(self._runtime.objects.get(_key_of(request)))

    async def _patch(self, request: web.Request) -> web.Response:
        return json_response(self._runtime.objects.patch(_key_of(request), await _body(request, dict)))

    async def _delete(self, request: web.Request) -> web.Response:
        return json_response(self._runtime.objects.delete(_key_of(request), _number(request, "gracePeriodSeconds")))

    async def _describe(self, request: web.Request) -> web.Response:
        return json_response(self._runtime.describe(_key_of(request)))

    async def _log(self, request: web.Request) -> web.StreamResponse:
        key = _key_of(request)
        if key.kind != "Pod":
            raise StatusError("BadRequest", "only pods have logs")
        path = self._runtime.log_path(key, request.query.get("container", ""))
        tail = _number(request, "tailLines")
        follow = request.query.get("follow") == "true"
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        before = await asyncio.to_thread(earlier, path, tail)
        position = 0 if tail is None else await asyncio.to_thread(start_of_tail, path, tail)
        if before is not None:
            await self._send_file(response, *before)
        position = await self._send_file(response, path, position)
        while follow and self._still_writes(key):
            await asyncio.sleep(_LOG_POLL_SECONDS)
            position = await self._send_file(response, path, position)
        await response.write_eof()
        return response

    async def _send_file(self, response: web.StreamResponse, path: Path, position: int) -> int:
        """Send what a file holds from a position on; the position after it."""
        while True:
            position, chunk = await asyncio.to_thread(read_from, path, position)
            if not chunk:
                return position
            await response.write(chunk)

    def _still_writes(self, key: ObjectKey) -> bool:
        try:
            status = self._runtime.objects.get(key).get("status", {})
        except StatusError:
            return False
        return status.get("phase") not in ("Succeeded", "Failed")


@web.middleware
async def _statuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Says every error as a Kubernetes Status."""
    try:
        return await handler(request)
    except StatusError as error:
        return status_response(_CODES[error.reason], error.reason, str(error), error.details)
    except StoreError as error:
        return status_response(500, "InternalError", str(error), [])
    except web.HTTPException as error:
        return status_response(error.status, error.reason.replace(" ", ""), error.text or error.reason, [])
    except ConnectionError:
        raise  # the client went away
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return status_response(500, "InternalError", "an internal error; the daemon's log tells more", [])


async def _body(request: web.Request, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except msgspec.DecodeError as error:
        raise StatusError("BadRequest", str(error)) from None


def _kind_named(title: str) -> type[Object]:
    kind = registry.find(title)
    if kind is None:
        raise StatusError("NotFound", f'there is no resource type "{title}"')
    return kind


def _kind_of(request: web.Request) -> type[Object]:
    return _kind_named(request.match_info["plural"])


def _key_of(request: web.Request) -> ObjectKey:
    kind = _kind_of(request)
    return ObjectKey(kind.KIND, request.match_info.get("namespace", ""), request.match_info["name"])


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise StatusError("BadRequest", f'{name}: "{text}" is not a number')
    return int(text)
