"""Writes the status of traffic policies when it has changed, and not more often than is useful.

When all sidecars have acknowledged a change, the status is written at once. That a policy is not in force yet, or how
many sidecars have it so far, is written only when it stays so for a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import ObjectReader, Resource
from nginx_mesh.api.times import rfc3339

from .interfaces import Recorder, StatusWriter
from .policystatus import PolicyStanding, condition, policy_status

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.2
_PATIENCE_SECONDS = 1.0
# How many statuses are written in one transaction, during which nothing else happens.
_BATCH = 100

Standing = Callable[[ObjectKey], PolicyStanding | None]
"""How far a policy is in force; None when there is no such policy."""


class PolicyReporter:
    """Keeps the status of the policies that it is told to look at. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        objects: ObjectReader,
        writer: StatusWriter,
        recorder: Recorder,
        standing: Standing,
        clock: Callable[[], float],
    ) -> None:
        self._objects = objects
        self._writer = writer
        self._recorder = recorder
        self._standing = standing
        self._clock = clock
        self._stale: set[ObjectKey] = set()
        self._due: dict[ObjectKey, float] = {}
        self._wake = asyncio.Event()

    def touch(self, policies: Iterable[ObjectKey]) -> None:
        """The standing of these policies may have changed."""
        self._stale.update(policies)
        if self._stale:
            self._wake.set()

    async def run(self) -> None:
        """Write the statuses that have changed, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._until_due()):
                    await self._wake.wait()
                await asyncio.sleep(_GATHER_SECONDS)
            except TimeoutError:
                self._stale.update(self._due)
            self._wake.clear()
            stale, self._stale = sorted(self._stale), set()
            for first in range(0, len(stale), _BATCH):
                await self._write_all(stale[first : first + _BATCH])
                await asyncio.sleep(0)

    def _until_due(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    async def _write_all(self, policies: Sequence[ObjectKey]) -> None:
        changes = {key: change for key in policies if (change := self._change(key)) is not None}
        try:
            await self._writer.write({key: new for key, (_, new) in changes.items()})
        except Exception:
            log.exception("cannot write the status of policies")
            return
        for key, (old, new) in changes.items():
            self._tell(key, old, new)

    def _change(self, key: ObjectKey) -> tuple[Resource, Resource] | None:
        """The status that a policy has, and the one to write; None when there is nothing to write now."""
        resource, standing = self._objects.get(key), self._standing(key)
        if resource is None or standing is None:
            self._due.pop(key, None)
            return None
        old = resource.get("status", {})
        generation, now = resource["metadata"]["generation"], rfc3339(self._clock())
        new = policy_status(standing, generation=generation, before=old, now=now)
        if new == old:
            self._due.pop(key, None)
            return None
        return (old, new) if self._worth_telling(key, old, new) else None

    def _worth_telling(self, key: ObjectKey, old: Resource, new: Resource) -> bool:
        """Whether to write now. A status that can wait is looked at again when it is due."""
        (was, _), (met, _) = condition(old), condition(new)
        news = met == "True" and (was != met or old.get("stateVersion") != new["stateVersion"])
        now = time.monotonic()
        if not news and now < self._due.setdefault(key, now + _PATIENCE_SECONDS):
            return False
        self._due.pop(key, None)
        return True

    def _tell(self, key: ObjectKey, old: Resource, new: Resource) -> None:
        before, (met, reason) = condition(old), condition(new)
        if before == (met, reason):
            return
        message = new["conditions"][0]["message"]
        if met == "True":
            self._recorder.record(key, "Normal", "InForce", message)
        elif reason != "Pending":
            self._recorder.record(key, "Warning", reason, message)
