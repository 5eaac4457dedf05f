"""Pushes the newest state to every sidecar, in one task for each.

Changes that come while a push is under way are sent together with the next one. A sidecar gets a full state first,
then updates that build on the version that it acknowledged to this pusher. Whatever a sidecar had before, no update
builds on a guess. Now and then each sidecar is asked for its version, so that one that lost its state, or got another
from somebody else, is given the right one although nothing changed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from prometheus_client import Counter, Histogram

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.protocol.control import Accepted, Conflict, Refused, SidecarUnreachableError
from nginx_mesh.protocol.standing import SidecarStanding
from nginx_mesh.protocol.state import Update

from .control import ControlSocket

log = logging.getLogger(__name__)

Source = Callable[[ObjectKey, int | None], Update | None]

_pushes = Counter("nginx_mesh_pushes_total", "Updates that sidecars were sent, by what became of them.", ["result"])
for _result in ("accepted", "conflict", "refused", "unreachable"):
    _pushes.labels(_result)
_push_seconds = Histogram(
    "nginx_mesh_push_seconds",
    "How long sidecars took to run an update.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)


class StateRefusedError(Exception):
    """A sidecar refused its state, and goes on with the one it had."""

    def __init__(self, pod: ObjectKey, refusal: Refused) -> None:
        super().__init__(f"the sidecar of {pod} refused {refusal.key or 'its state'}: {refusal.reason}")
        self.pod = pod
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times in seconds.

    `pause` is the shortest time between two pushes to one sidecar, `check` the time between questions for its version.
    While it cannot be reached, it is tried again after `retry`, then after twice as long each time, up to
    `slowest_retry`. `timeout` is how long one answer may take.
    """

    pause: float = 0.01
    check: float = 2.0
    retry: float = 0.02
    slowest_retry: float = 1.0
    timeout: float = 10.0


@dataclass(slots=True)
class _Sidecar:
    """One sidecar that is served. Calls for a push are counted.

    `wanted` is the number of the newest call, `tried` that of the last one that was pushed, `done` that of the last one
    that the sidecar acknowledged. `acknowledged` is the version that the sidecar has, None when that is not known;
    `doubtful` is set when its version has to be asked for. `unreachable` says why it does not answer. `behind_since`
    (monotonic) is None while the sidecar has its newest state.
    """

    pod: ObjectKey
    wanted: int = 1
    tried: int = 0
    done: int = 0
    acknowledged: int | None = None
    refusal: StateRefusedError | None = None
    doubtful: bool = False
    unreachable: str = ""
    behind_since: float | None = field(default_factory=time.monotonic)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: list[tuple[int, asyncio.Future[int]]] = field(default_factory=list)

    @property
    def synced(self) -> bool:
        return self.done >= self.wanted and self.acknowledged is not None and not self.unreachable

    def call(self) -> None:
        self.wanted += 1
        self.note_behind()
        self.wake.set()

    def reached(self, trouble: str = "") -> None:
        """The sidecar answered, or did not answer for this reason."""
        self.unreachable = trouble
        self.note_behind()

    def note_behind(self) -> None:
        """Note since when the sidecar is behind."""
        if self.synced:
            self.behind_since = None
        elif self.behind_since is None:
            self.behind_since = time.monotonic()

    def accept(self, goal: int, version: int) -> None:
        self.tried = self.done = goal
        self.acknowledged, self.refusal = version, None
        self.reached()
        for future in self._due(goal):
            future.set_result(version)

    def refuse(self, goal: int, refusal: StateRefusedError) -> None:
        self.tried, self.refusal = goal, refusal
        self.reached()
        for future in self._due(goal):
            future.set_exception(refusal)

    def _due(self, goal: int) -> list[asyncio.Future[int]]:
        due = [future for wanted, future in self.waiting if wanted <= goal and not future.done()]
        self.waiting = [(wanted, future) for wanted, future in self.waiting if wanted > goal]
        return due


class Pusher:
    """Pushes the state that `source(pod, base)` gives to the sidecars it was told to serve. An async context manager.

    `refused` is called for every refusal, `acknowledged` when `acknowledged(pod)` may be another: a sidecar has taken a
    version, or is found not to have it any longer. A `source` that gives None for a pod leaves its sidecar as it is.
    """

    def __init__(
        self,
        source: Source,
        *,
        refused: Callable[[StateRefusedError], None] | None = None,
        acknowledged: Callable[[ObjectKey], None] = lambda _: None,
        pace: Pace | None = None,
    ) -> None:
        self._source = source
        self._refused = refused
        self._acknowledged = acknowledged
        self._pace = pace or Pace()
        self._sidecars: dict[ObjectKey, _Sidecar] = {}
        self._tasks: dict[ObjectKey, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Pusher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pod in tuple(self._tasks):
            await self.drop(pod)

    def serve(self, pod: ObjectKey, socket: Path) -> None:
        """Push to this pod's sidecar from now on; its socket need not exist yet. ValueError if it is served already."""
        if pod in self._tasks:
            raise ValueError(f"{pod} is served already")
        sidecar = self._sidecars[pod] = _Sidecar(pod)
        self._tasks[pod] = asyncio.create_task(self._run(sidecar, socket), name=f"push {pod}")

    async def drop(self, pod: ObjectKey) -> None:
        """Stop pushing to this pod's sidecar. Those that wait for it are cancelled."""
        task, sidecar = self._tasks.pop(pod, None), self._sidecars.pop(pod, None)
        if task is None or sidecar is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _, future in sidecar.waiting:
            future.cancel()

    def restarted(self, pod: ObjectKey) -> None:
        """The pod's sidecar has started anew, so it needs its whole state before the next check would find that out."""
        sidecar = self._sidecars.get(pod)
        if sidecar is not None:
            self._lost(sidecar)
            sidecar.call()

    def changed(self, pods: Iterable[ObjectKey]) -> None:
        """The state of these pods' sidecars has changed. Pods that are not served are passed over."""
        for pod in pods:
            sidecar = self._sidecars.get(pod)
            if sidecar is not None:
                sidecar.call()

    def acknowledged(self, pod: ObjectKey) -> int | None:
        """The version that the pod's sidecar has, None when that is not known."""
        sidecar = self._sidecars.get(pod)
        return None if sidecar is None else sidecar.acknowledged

    def standing(self, pod: ObjectKey) -> SidecarStanding | None:
        """How far the pod's sidecar is, None when it is not served."""
        sidecar = self._sidecars.get(pod)
        if sidecar is None:
            return None
        version, since = sidecar.acknowledged, sidecar.behind_since
        behind = 0.0 if since is None else time.monotonic() - since
        if sidecar.unreachable:
            return SidecarStanding("unreachable", version, sidecar.unreachable, behind)
        if sidecar.refusal is not None and sidecar.tried >= sidecar.wanted:
            return SidecarStanding("refused", version, str(sidecar.refusal), behind)
        return SidecarStanding("synced" if sidecar.synced else "pending", version, behind=behind)

    async def synced(self, pod: ObjectKey) -> int:
        """Wait until the sidecar acknowledged all changes so far; the version it has then.

        Raises KeyError for a pod that is not served, StateRefusedError when the sidecar refused them.
        """
        sidecar = self._sidecars[pod]
        if sidecar.done >= sidecar.wanted and sidecar.acknowledged is not None:
            return sidecar.acknowledged
        if sidecar.tried >= sidecar.wanted and sidecar.refusal is not None:
            raise sidecar.refusal
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        sidecar.waiting.append((sidecar.wanted, future))
        return await future

    async def _run(self, sidecar: _Sidecar, path: Path) -> None:
        retry = self._pace.retry
        async with ControlSocket(path, timeout=self._pace.timeout) as socket:
            while True:
                try:
                    await self._follow(sidecar, socket)
                    retry = self._pace.retry
                except SidecarUnreachableError as error:
                    sidecar.reached(str(error))
                    if retry == self._pace.retry:
                        log.info("the sidecar of %s cannot be reached: %s", sidecar.pod, error)
                    await asyncio.sleep(retry)
                    retry = min(2 * retry, self._pace.slowest_retry)
                except Exception:
                    # A fault of ours concerns one pod: the other pods' tasks go on, and so does this one.
                    log.exception("cannot push to the sidecar of %s", sidecar.pod)
                    await asyncio.sleep(self._pace.slowest_retry)

    async def _follow(self, sidecar: _Sidecar, socket: ControlSocket) -> None:
        """Push what is wanted. When nothing is wanted for a while, check that the sidecar still has its version."""
        if sidecar.tried < sidecar.wanted:
            await self._push(sidecar, socket)
            await asyncio.sleep(self._pace.pause)
            return
        sidecar.wake.clear()
        if not sidecar.doubtful:
            try:
                async with asyncio.timeout(self._pace.check):
                    await sidecar.wake.wait()
                return
            except TimeoutError:
                sidecar.doubtful = True
        version = await socket.version()
        sidecar.doubtful = False
        sidecar.reached()
        if sidecar.acknowledged not in (None, version):
            log.info("the sidecar of %s has version %d: it gets its whole state again", sidecar.pod, version)
            self._lost(sidecar)
            sidecar.call()

    def _lost(self, sidecar: _Sidecar) -> None:
        """What the sidecar has is not known any longer: it needs its whole state."""
        sidecar.acknowledged = None
        self._acknowledged(sidecar.pod)

    async def _push(self, sidecar: _Sidecar, socket: ControlSocket) -> None:
        goal = sidecar.wanted
        update = self._source(sidecar.pod, sidecar.acknowledged)
        if update is None:
            sidecar.tried = goal
            return
        if update.base is not None and not (update.set_ or update.delete or update.endpoints):
            sidecar.accept(goal, update.base)
            self._acknowledged(sidecar.pod)
            return
        start = time.monotonic()
        try:
            answer = await socket.put(update)
        except SidecarUnreachableError:
            _pushes.labels("unreachable").inc()
            raise
        _pushes.labels(type(answer).__name__.lower()).inc()
        match answer:
            case Accepted(version):
                _push_seconds.observe(time.monotonic() - start)
                sidecar.accept(goal, version)
                self._acknowledged(sidecar.pod)
            case Conflict() if update.base is None:
                raise SidecarUnreachableError("it will not take a full state")
            case Conflict():
                self._lost(sidecar)
            case Refused():
                refusal = StateRefusedError(sidecar.pod, answer)
                log.error("%s", refusal)
                sidecar.refuse(goal, refusal)
                if self._refused is not None:
                    self._refused(refusal)
