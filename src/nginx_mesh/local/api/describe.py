"""Descriptions of objects: the object, its events, and what else the mesh knows about it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.control.interfaces import EventReader
from nginx_mesh.identity.common.svidstatus import SvidStatus

from .objects import Objects


class Describer:
    """Makes descriptions. `svid_status` returns the SVID of the pod with a uid, None when the pod is not registered.

    `endpoints` returns the endpoints, `ADDRESS:PORT` each, of a Service.
    """

    def __init__(
        self,
        objects: Objects,
        events: EventReader,
        svid_status: Callable[[str], SvidStatus | None],
        endpoints: Callable[[Resource], list[str]],
    ) -> None:
        self._objects = objects
        self._events = events
        self._svid_status = svid_status
        self._endpoints = endpoints

    def describe(self, key: ObjectKey) -> Resource:
        """`object` and `events`; also `identity` of a Pod, and `endpoints` of a Service. Raises StatusError."""
        resource = self._objects.get(key)
        about = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
        events = [event for event in self._events.list() if event["involvedObject"] == about]
        description: Resource = {"object": resource, "events": events}
        if key.kind == "Pod":
            held = self._svid_status(resource["metadata"]["uid"])
            description["identity"] = None if held is None else msgspec.to_builtins(held)
        if key.kind == "Service":
            description["endpoints"] = self._endpoints(resource)
        return description
