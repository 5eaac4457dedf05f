"""Keeps the node's DNS and service addresses in line with the Services, Pods and EndpointSlices of the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from nginx_mesh.api.resource import ObjectReader, Resource
from nginx_mesh.api.services import EndpointSlice, Service

from .api.store import ObjectChange
from .api.typed import list_pods
from .node.services import ServiceEntry, resolve_services

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


class ServiceSync:
    """Hands the node the table of services whenever it may have changed. `sync` is `Kubelet.sync_services`."""

    def __init__(self, objects: ObjectReader, sync: Callable[[Iterable[ServiceEntry]], Awaitable[None]]) -> None:
        self._objects = objects
        self._sync = sync
        self._changed = asyncio.Event()
        self._changed.set()

    def follow(self, change: ObjectChange) -> None:
        """Take in a change of any object."""
        if change.key.kind in ("Pod", "Service", "EndpointSlice"):
            self._changed.set()

    async def run(self) -> None:
        """Keep the node's table up to date. Runs until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._sync(self._resolve(self._objects.list("Service"), None))
            except Exception:
                log.exception("cannot update the services")
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()

    def endpoints(self, service: Resource) -> list[str]:
        """The endpoints of a Service that take connections, `ADDRESS:PORT` each."""
        (entry,) = self._resolve([service], service["metadata"]["namespace"])
        return [f"{backend.addresses[0]}:{port}" for backend in entry.active for port in backend.ports if port]

    def _resolve(self, services: Iterable[Resource], namespace: str | None) -> list[ServiceEntry]:
        """The entries of services that are in a namespace, or in any."""
        slices = [msgspec.convert(item, EndpointSlice) for item in self._objects.list("EndpointSlice", namespace)]
        return resolve_services(
            (msgspec.convert(service, Service) for service in services), list_pods(self._objects, namespace), slices
        )
