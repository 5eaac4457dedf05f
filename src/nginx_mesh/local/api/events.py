"""Kubernetes Events about objects, for `describe` and `get events`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.api.times import rfc3339
from nginx_mesh.control.interfaces import EventType

_recorded = Counter("nginx_mesh_events_total", "Events of objects that were recorded.", ["type"])
for _type in ("Normal", "Warning"):
    _recorded.labels(_type)
_dropped = Counter("nginx_mesh_events_dropped_total", "Events that were forgotten, as there were too many newer ones.")


@dataclass
class _Event:
    number: int
    first: float
    last: float
    count: int = 1


class EventLog:
    """The last `limit` distinct events. An event that repeats is counted, and not stored again."""

    def __init__(self, clock: Callable[[], float], limit: int = 2000) -> None:
        self._clock = clock
        self._limit = limit
        self._number = 0
        self._events: OrderedDict[tuple[ObjectKey, EventType, str, str], _Event] = OrderedDict()

    def record(self, key: ObjectKey, kind: EventType, reason: str, message: str) -> None:
        """Record that this happened now."""
        now = self._clock()
        _recorded.labels(kind).inc()
        identity = (key, kind, reason, message)
        if event := self._events.get(identity):
            event.count += 1
            event.last = now
        else:
            self._number += 1
            self._events[identity] = _Event(self._number, now, now)
        self._events.move_to_end(identity)
        if len(self._events) > self._limit:
            self._events.popitem(last=False)
            _dropped.inc()

    def warn_once(self, key: ObjectKey, reason: str, message: str, *, or_said_as: str) -> None:
        """Record a Warning, unless one with this message exists for the object, with this reason or `or_said_as`."""
        if not any((key, "Warning", known, message) in self._events for known in (reason, or_said_as)):
            self.record(key, "Warning", reason, message)

    def latest_warning(self, key: ObjectKey) -> str:
        """The message of the latest Warning about an object, empty when there is none."""
        return next((event[3] for event in reversed(self._events) if event[:2] == (key, "Warning")), "")

    def __len__(self) -> int:
        return len(self._events)

    def list(self, namespace: str | None = None) -> list[Resource]:
        """Events of one namespace or of all, as v1 Event objects, the latest last."""
        return [
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{key.name}.{event.number:x}", "namespace": key.namespace or "default"},
                "involvedObject": {"kind": key.kind, "namespace": key.namespace, "name": key.name},
                "type": kind,
                "reason": reason,
                "message": message,
                "count": event.count,
                "firstTimestamp": rfc3339(event.first),
                "lastTimestamp": rfc3339(event.last),
            }
            for (key, kind, reason, message), event in self._events.items()
            if namespace is None or (key.namespace or "default") == namespace
        ]
