"""The Traffic Metrics API over HTTP.

| path below `/apis/metrics.smi-spec.io` | |
|---|---|
| (nothing), `/v1alpha1` | discovery: the group, its resources |
| `/v1alpha1/namespaces` | requests that namespaces received and sent |
| `/v1alpha1/namespaces/{ns}`, `…/edges` | the same of one namespace, and by peers |
| `/v1alpha1/namespaces/{ns}/{kind}` | the same of each resource of the kind |
| `/v1alpha1/namespaces/{ns}/{kind}/{name}`, `…/edges` | the same of one resource, and by peers |
| `/v1alpha1/{kind}` | resources of all namespaces |

A resource without traffic in the window has no item. Errors are Kubernetes `Status` objects.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.typedefs import Handler

from nginx_mesh.observe.responses import json_response, status_response
from nginx_mesh.traffic.measure import TrafficQuery

from . import documents
from .flows import Flow
from .measure import KINDS, NAMESPACES, measure

log = logging.getLogger(__name__)

WINDOW = 30.0
"""Seconds that traffic is measured over."""

Source = Callable[[TrafficQuery], Awaitable[Sequence[Flow]]]
"""Gives the flows of the last WINDOW seconds, at least those that the question is about. Raises SourceError."""


class SourceError(Exception):
    """The flows cannot be read; the message gives the reason."""


class TrafficMetrics:
    """The API over a source of flows. `clock` gives seconds since the epoch."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock

    def application(self) -> web.Application:
        """The application, to be served below documents.ROOT."""
        app = web.Application(middlewares=[statuses])
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
        return await self._answer(request, edges=False)

    async def _edges(self, request: web.Request) -> web.Response:
        return await self._answer(request, edges=True)

    async def _answer(self, request: web.Request, *, edges: bool) -> web.Response:
        match = request.match_info
        kind = KINDS.get(match.get("plural", NAMESPACES.plural))
        if kind is None or (not kind.namespaced and match.get("namespace")):
            raise web.HTTPNotFound
        question = TrafficQuery(kind, match.get("namespace", ""), match.get("name", ""), edges)
        return json_response(await answer(self._source, question, request.path, self._clock()))


async def answer(source: Source, question: TrafficQuery, path: str, now: float) -> documents.Document:
    """The TrafficMetricsList that answers a question. `now` is seconds since the epoch. Raises SourceError."""
    timestamp = datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    measured = measure(await source(question), question)
    return documents.metrics_list(measured, question.resource, path, timestamp, WINDOW)


def _constant(document: documents.Document) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return json_response(document)

    return answer


@web.middleware
async def statuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error into a Kubernetes Status."""
    try:
        return await handler(request)
    except SourceError as error:
        return status_response(503, "ServiceUnavailable", str(error))
    except web.HTTPNotFound:
        return status_response(404, "NotFound", "the server could not find the requested resource")
    except web.HTTPMethodNotAllowed:
        return status_response(
            405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
        )
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return status_response(500, "InternalError", "an internal error; the server's log tells more")
