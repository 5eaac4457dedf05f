"""The Traffic Metrics API over HTTP.

| path below `/apis/metrics.smi-spec.io` | |
|---|---|
| (nothing), `/v1alpha1` | discovery: the group, its resources |
| `/v1alpha1/namespaces` | what namespaces received and sent |
| `/v1alpha1/namespaces/{ns}`, `…/edges` | the same of one namespace, and by peers |
| `/v1alpha1/namespaces/{ns}/{kind}` | what each resource of the kind received and sent |
| `/v1alpha1/namespaces/{ns}/{kind}/{name}`, `…/edges` | the same of one resource, and by peers |
| `/v1alpha1/{kind}` | resources of all namespaces |

What had no traffic within the window has no item. Errors are Kubernetes `Status` objects.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import orjson
from aiohttp import web

from . import documents
from .flows import Flow
from .measure import KINDS, NAMESPACES, Kind, Measured, Reference, edges, totals

WINDOW = 30.0

Source = Callable[[float], Awaitable[Sequence[Flow]]]
"""The flows of the last so many seconds. Raises SourceError."""


class SourceError(Exception):
    """Traffic cannot be told; the message says why."""


class TrafficMetrics:
    """Answers requests from a source of flows. `clock` gives seconds since the epoch."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock

    def application(self) -> web.Application:
        """To be served below documents.ROOT."""
        app = web.Application(middlewares=[_statuses])
        version = f"/{documents.VERSION}"
        app.router.add_get("", _constant(documents.group()))
        app.router.add_get("/", _constant(documents.group()))
        app.router.add_get(version, _constant(documents.resource_list()))
        app.router.add_get(f"{version}/", _constant(documents.resource_list()))
        for path in ("/namespaces/{name}", "/namespaces/{namespace}/{plural}/{name}"):
            app.router.add_get(f"{version}{path}/edges", self._edges)
        for path in (
            "/namespaces/{name}",
            "/namespaces/{namespace}/{plural}",
            "/namespaces/{namespace}/{plural}/{name}",
            "/{plural}",
        ):
            app.router.add_get(version + path, self._totals)
        return app

    async def _totals(self, request: web.Request) -> web.Response:
        kind, asked = _asked(request)
        measured = totals(await self._source(WINDOW), kind, asked.namespace, asked.name)
        return self._list(request, measured, asked)

    async def _edges(self, request: web.Request) -> web.Response:
        kind, asked = _asked(request)
        measured = edges(await self._source(WINDOW), kind, asked.namespace, asked.name)
        return self._list(request, measured, asked)

    def _list(self, request: web.Request, measured: Sequence[Measured], asked: Reference) -> web.Response:
        timestamp = datetime.fromtimestamp(int(self._clock()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _json(documents.metrics_list(measured, asked, request.path, timestamp, WINDOW))


def _asked(request: web.Request) -> tuple[Kind, Reference]:
    match = request.match_info
    plural = match.get("plural", NAMESPACES.plural)
    kind = KINDS.get(plural)
    if kind is None or (not kind.namespaced and match.get("namespace")):
        raise web.HTTPNotFound(text="the server could not find the requested resource")
    return kind, Reference(kind.kind, match.get("namespace", ""), match.get("name", ""))


def _constant(document: documents.Document) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return _json(document)

    return answer


@web.middleware
async def _statuses(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except SourceError as error:
        return _status(503, "ServiceUnavailable", str(error))
    except web.HTTPNotFound:
        return _status(404, "NotFound", "the server could not find the requested resource")
    except web.HTTPMethodNotAllowed:
        return _status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def _status(code: int, reason: str, message: str) -> web.Response:
    status: documents.Document = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return _json({**status, "message": message, "reason": reason, "details": {}, "code": code}, code)


def _json(document: documents.Document, code: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=code, content_type="application/json")
