"""The part of the API about the identities of pods, and about the authority that issues them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
from aiohttp import web

from nginx_mesh.api.resource import ObjectReader, Resource
from nginx_mesh.api.status import StatusError
from nginx_mesh.identity.common.svidstatus import SvidStatus
from nginx_mesh.observe.responses import json_response


class MeshIdentity(Protocol):
    """The provider of the identities of the mesh's pods."""

    @property
    def admin(self) -> web.Application | None:
        """The operators' API of the authority; None when the authority is not in this process."""

    def where(self) -> Mapping[str, str]:
        """`provider`, `address` and `trust_domain`; the address is "" when the authority is in this process."""

    def svid_status(self, uid: str) -> SvidStatus | None:
        """The SVID of the pod with a uid; None when the pod is not registered."""


class IdentityRoutes:
    """Serves the identities of the pods among `objects`."""

    def __init__(self, objects: ObjectReader, provider: MeshIdentity) -> None:
        self._objects = objects
        self._provider = provider

    def routes(self) -> list[web.RouteDef]:
        """The routes, for `app.add_routes`."""
        routes = [web.get("/mesh/identities", self._get_all), web.get("/mesh/identity", self._get_authority)]
        if self._provider.admin is None:
            routes.append(web.route("*", "/identity{rest:.*}", self._refuse))
        return routes

    def applications(self) -> dict[str, web.Application]:
        """The applications to serve, by their paths."""
        admin = self._provider.admin
        return {} if admin is None else {"/identity": admin}

    def all(self) -> list[Resource]:
        """The identity of every pod that has one, or waits for one."""
        return [
            {
                "namespace": pod["metadata"]["namespace"],
                "pod": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
                **msgspec.to_builtins(held),
            }
            for pod in self._objects.list("Pod")
            if (held := self._provider.svid_status(pod["metadata"]["uid"])) is not None
        ]

    async def _get_all(self, _: web.Request) -> web.Response:
        return json_response(self.all())

    async def _get_authority(self, _: web.Request) -> web.Response:
        return json_response(self._provider.where())

    async def _refuse(self, _: web.Request) -> web.Response:
        where = self._provider.where()
        place = where["address"] or f"with the provider {where['provider']}"
        raise StatusError("NotFound", f"the authority of this mesh is {place}: ask there, with --socket PATH")
