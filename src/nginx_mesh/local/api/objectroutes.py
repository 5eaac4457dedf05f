"""The part of the API that reads and changes objects, and the settings of the mesh, which are an object too."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import msgspec
from aiohttp import web

from nginx_mesh.api import discovery
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.status import StatusError
from nginx_mesh.observe.responses import json_response

from .http import OBJECT_PATHS, json_body, key_of, kind_of, kind_titled, number
from .objects import Objects


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    data: str


class _Manifests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    files: list[_File]
    namespace: str = "default"

    def contents(self) -> list[tuple[str, bytes]]:
        """The source and the content of each file. Raises StatusError."""
        try:
            return [(file.source, base64.b64decode(file.data, validate=True)) for file in self.files]
        except binascii.Error as error:
            raise StatusError("BadRequest", f"data: {error}") from None


class ObjectRoutes:
    """Serves `objects`. `describe` returns an object with its events; it raises StatusError.

    `readiness` returns the document of control/readiness.py, of some objects or, for None, of all.
    """

    def __init__(
        self,
        objects: Objects,
        describe: Callable[[ObjectKey], Resource],
        readiness: Callable[[set[ObjectKey] | None], Resource],
    ) -> None:
        self._objects = objects
        self._describe = describe
        self._readiness = readiness

    def routes(self) -> list[web.RouteDef]:
        """The routes, for `app.add_routes`."""
        routes = [
            web.post("/mesh/apply", self._apply),
            web.post("/mesh/delete", self._delete_all),
            web.patch("/mesh/settings", self._change_settings),
            web.get("/mesh/readiness", self._get_readiness),
        ]
        for path in OBJECT_PATHS:
            routes += [
                web.get(path, self._list),
                web.get(path + "/{name}", self._get),
                web.patch(path + "/{name}", self._patch),
                web.delete(path + "/{name}", self._delete),
                web.get(path + "/{name}/description", self._get_description),
            ]
        return routes

    async def _apply(self, request: web.Request) -> web.Response:
        manifests = await json_body(request, _Manifests)
        results = await self._objects.apply(manifests.contents(), manifests.namespace)
        return json_response(
            [
                {
                    "object": f"{discovery.title(discovery.by_kind(result.key.kind))}/{result.key.name}",
                    "outcome": result.outcome,
                    "warnings": result.warnings,
                }
                for result in results
            ]
        )

    async def _delete_all(self, request: web.Request) -> web.Response:
        manifests = await json_body(request, _Manifests)
        deleted = await self._objects.delete_all(
            manifests.contents(), manifests.namespace, number(request, "gracePeriodSeconds")
        )
        return json_response(
            [{"kind": key.kind, "namespace": key.namespace, "name": key.name, "uid": uid} for key, uid in deleted]
        )

    async def _change_settings(self, request: web.Request) -> web.Response:
        self._objects.configure(await json_body(request, dict))
        return json_response({})

    async def _get_readiness(self, request: web.Request) -> web.Response:
        namespace, only = request.query.get("namespace", ""), None
        if "object" in request.query:
            pairs = [part.partition("/") for part in request.query["object"].split(",")]
            only = {ObjectKey(kind_titled(title).KIND, namespace, name) for title, _, name in pairs}
        return json_response(self._readiness(only))

    async def _list(self, request: web.Request) -> web.Response:
        kind = kind_of(request)
        items = self._objects.of_kind(kind.KIND, request.match_info.get("namespace"))
        return json_response(
            {"apiVersion": kind.API_VERSION, "kind": f"{kind.KIND}List", "metadata": {}, "items": items}
        )

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(self._objects.get(key_of(request)))

    async def _patch(self, request: web.Request) -> web.Response:
        return json_response(self._objects.patch(key_of(request), await json_body(request, dict)))

    async def _delete(self, request: web.Request) -> web.Response:
        return json_response(self._objects.delete(key_of(request), number(request, "gracePeriodSeconds")))

    async def _get_description(self, request: web.Request) -> web.Response:
        return json_response(self._describe(key_of(request)))
