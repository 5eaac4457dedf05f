"""Writes the status of traffic policies, when it says something new and not more often than is of use.

What a sidecar acknowledges within a second of a change is told at once; that something is not in force yet, or how
many sidecars have it so far, is only told when it stays so for a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.compile.reach import Force
from nginx_mesh.local.api.events import EventLog
from nginx_mesh.local.api.store import Resource, Store, Transaction, timestamp

from .policystatus import condition, policy_status

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.2
_PATIENCE_SECONDS = 1.0
# Written in one transaction, which nothing else can come between.
_BATCH = 100

Standing = Callable[[ObjectKey], tuple[Force, int, int] | None]
"""How a policy is in force, on how many sidecars, and how many have it as it is; None when there is none."""


class PolicyStatuses:
    """Keeps the status of the policies that it is told to look at."""

    def __init__(self, store: Store, standing: Standing, events: EventLog, clock: Callable[[], float]) -> None:
        self._store = store
        self._standing = standing
        self._events = events
        self._clock = clock
        self._stale: set[ObjectKey] = set()
        self._due: dict[ObjectKey, float] = {}
        self._wake = asyncio.Event()

    def touch(self, policies: Iterable[ObjectKey]) -> None:
        """The standing of these may be another now."""
        self._stale.update(policies)
        if self._stale:
            self._wake.set()

    async def run(self) -> None:
        """Write what there is to write, until cancelled."""
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
                self._write_all(stale[first : first + _BATCH])
                await asyncio.sleep(0)

    def _until_due(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _write_all(self, policies: Sequence[ObjectKey]) -> None:
        try:
            with self._store.transaction(durable=False) as tx:
                for key in policies:
                    self._write(tx, key)
        except Exception:
            log.exception("cannot write the status of policies")
            for key in policies:
                self._due.pop(key, None)

    def _write(self, tx: Transaction, key: ObjectKey) -> None:
        resource, standing = tx.get(key), self._standing(key)
        if resource is None or standing is None:
            self._due.pop(key, None)
            return
        force, sidecars, updated = standing
        old = resource.get("status", {})
        new = policy_status(
            force,
            sidecars=sidecars,
            updated=updated,
            generation=resource["metadata"]["generation"],
            before=old,
            now=timestamp(self._clock()),
        )
        if new == old:
            self._due.pop(key, None)
            return
        if not self._worth_telling(key, old, new):
            return
        tx.put({**resource, "status": new})
        self._tell(key, old, new)

    def _worth_telling(self, key: ObjectKey, old: Resource, new: Resource) -> bool:
        """Whether to write now; what can wait is looked at again when it is due."""
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
            self._events.record(key, "Normal", "InForce", message)
        elif reason != "Pending":
            self._events.record(key, "Warning", reason, message)
