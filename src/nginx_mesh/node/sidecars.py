"""The sidecars of one node: each is kept at the newest state that the control plane has for it, with its pod's SVID."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.protocol.control import SidecarUnreachableError, Tap
from nginx_mesh.protocol.explain import Asked, Incoming, Outgoing, Question
from nginx_mesh.protocol.standing import SidecarReport, SidecarStanding
from nginx_mesh.protocol.state import Identity, Update

from . import explain
from .control import ControlSocket
from .overlay import IdentityOverlay
from .push import Pace, Pusher, StateRefusedError

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Asked)

# How soon a sidecar that refused its first state is looked at again.
_REFUSED_SECONDS = 1.0
_TAP_SECONDS = 1.0


class StateSource(Protocol):
    """The control plane, as a node asks it and reports to it. Versions are those of the control plane's states."""

    def update_for(self, pod: ObjectKey, base: int | None) -> Update | None:
        """What takes a sidecar from version `base` to the newest state, all of it for None, without an identity.

        None when the pod has no sidecar.
        """

    def acknowledged(self, pod: ObjectKey, version: int | None) -> None:
        """A sidecar has this version, None when that is not known."""

    def refused(self, pod: ObjectKey, reason: str) -> None:
        """A sidecar refused its newest state, and goes on with the one that it had."""

    def dropped(self, pod: ObjectKey) -> None:
        """A pod's sidecar is gone."""


@dataclass(slots=True)
class _Sidecar:
    """`identified` is set once the pod has an identity, or is gone; `live` once its sidecar has had a state."""

    uid: str
    identified: asyncio.Event
    live: bool
    task: asyncio.Task[None]


class NodeSidecars:
    """Serves the sidecars of the pods that it is told of.

    `control_socket` gives where the sidecar of the pod with a uid listens. `live` hears the uid of each pod whose
    sidecar has its first state.
    """

    def __init__(
        self,
        source: StateSource,
        *,
        control_socket: Callable[[str], Path],
        live: Callable[[str], None] = lambda _: None,
        first_version: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._source = source
        self._control_socket = control_socket
        self._tell_live = live
        self._sidecars: dict[ObjectKey, _Sidecar] = {}
        self._overlay = IdentityOverlay(
            source.update_for, time.time_ns() // 1_000_000 if first_version is None else first_version
        )
        self._pusher = Pusher(
            self._overlay.update_for, refused=self._refused, acknowledged=self._acknowledged, pace=pace
        )

    def serve(self, pod: ObjectKey, uid: str, *, had_state: bool) -> None:
        """Give the pod's sidecar its state from now on, as soon as the pod has an identity.

        `had_state` says that an earlier process on this node gave it one.
        """
        task = asyncio.create_task(self._await_first_state(pod), name=f"await the first state of {pod}")
        self._sidecars[pod] = _Sidecar(uid, asyncio.Event(), had_state, task)
        if had_state:
            self._source.acknowledged(pod, None)

    def set_identity(self, pod: ObjectKey, identity: Identity | None) -> None:
        """The pod's newest identity, None when it was taken away. Pods that are not served are passed over."""
        sidecar = self._sidecars.get(pod)
        if sidecar is None:
            return
        self._overlay.set_identity(pod, identity)
        self._pusher.changed((pod,))
        if identity is not None and not sidecar.identified.is_set():
            # Not sooner: a sidecar that an earlier process served would lose the identity that it has.
            self._pusher.serve(pod, self._control_socket(sidecar.uid))
            sidecar.identified.set()

    def changed(self, pods: AbstractSet[ObjectKey]) -> None:
        """The control plane's state of these pods' sidecars has changed. Pods that are not served are passed over."""
        self._pusher.changed(pods)

    async def drop(self, pod: ObjectKey, uid: str) -> None:
        """The pod with this uid is gone."""
        sidecar = self._sidecars.get(pod)
        if sidecar is None or sidecar.uid != uid:
            return
        del self._sidecars[pod]
        await self._end(pod, sidecar)
        self._overlay.forget(pod)
        self._source.dropped(pod)

    async def close(self) -> None:
        """Stop; the sidecars go on with what they have."""
        for pod, sidecar in tuple(self._sidecars.items()):
            await self._end(pod, sidecar)

    def all(self) -> Iterator[SidecarReport]:
        """Every sidecar, and how far it is."""
        for pod, sidecar in self._sidecars.items():
            yield SidecarReport(pod, sidecar.uid, sidecar.live, self.standing(pod))

    def standing(self, pod: ObjectKey) -> SidecarStanding | None:
        """How far a sidecar is, by the control plane's versions; None while it is not given any state."""
        standing = self._pusher.standing(pod)
        if standing is None:
            return None
        version = self._overlay.plane_version(pod, standing.version)
        return SidecarStanding(standing.state, version, standing.reason, standing.behind)

    def live(self) -> dict[ObjectKey, str]:
        """The pods whose sidecars have had a state, with their uids."""
        return {pod: sidecar.uid for pod, sidecar in self._sidecars.items() if sidecar.live}

    def public_identity(self, pod: ObjectKey) -> dict[str, Any] | None:
        """A sidecar's identity without the private key, None while it has none."""
        identity = self._overlay.identity(pod)
        return None if identity is None else identity.public()

    async def metrics(self, pod: ObjectKey, timeout: float) -> str:
        """What a sidecar exposes to Prometheus. `timeout` in seconds. Raises SidecarUnreachableError."""
        async with ControlSocket(self._live_socket(pod), timeout=timeout) as sidecar:
            return await sidecar.metrics()

    async def tap(self, taps: Mapping[ObjectKey, Tap]) -> None:
        """Tell sidecars which requests to report. One that is not live, or does not answer, is passed over."""
        live = self.live()
        await asyncio.gather(*(self._tap(pod, tap) for pod, tap in taps.items() if pod in live))

    async def explain_outgoing(self, pod: ObjectKey, question: Question) -> Outgoing:
        """What a caller's sidecar would do. Raises SidecarUnreachableError and NotUnderstoodError."""
        return self._by_plane(pod, await explain.ask_outgoing(self._explain_socket(pod), question))

    async def explain_incoming(self, pod: ObjectKey, question: Question) -> Incoming:
        """What a called sidecar would do. Raises SidecarUnreachableError and NotUnderstoodError."""
        return self._by_plane(pod, await explain.ask_incoming(self._explain_socket(pod), question))

    def _by_plane(self, pod: ObjectKey, answer: A) -> A:
        """The answer with the version of the control plane's state that the sidecar decided by.

        A version that an earlier process on this node gave out is left as it is.
        """
        version = self._overlay.plane_version(pod, answer.version)
        return answer if version is None else msgspec.structs.replace(answer, version=version)

    def _live_socket(self, pod: ObjectKey) -> Path:
        sidecar = self._sidecars.get(pod)
        if sidecar is None or not sidecar.live:
            raise SidecarUnreachableError("it has not got its first state yet")
        return self._control_socket(sidecar.uid)

    def _explain_socket(self, pod: ObjectKey) -> Path:
        return self._live_socket(pod).with_name("explain.sock")

    async def _tap(self, pod: ObjectKey, tap: Tap) -> None:
        try:
            async with ControlSocket(self._live_socket(pod), timeout=_TAP_SECONDS) as sidecar:
                await sidecar.tap(tap)
        except SidecarUnreachableError as error:
            log.debug("the sidecar of %s is not told what to report: %s", pod, error)

    async def _await_first_state(self, pod: ObjectKey) -> None:
        while (sidecar := self._sidecars.get(pod)) is not None and not sidecar.live:
            await sidecar.identified.wait()
            try:
                await self._pusher.synced(pod)
            except StateRefusedError:
                await asyncio.sleep(_REFUSED_SECONDS)
                continue
            except KeyError:
                return
            sidecar.live = True
            self._report(pod)
            self._tell_live(sidecar.uid)

    async def _end(self, pod: ObjectKey, sidecar: _Sidecar) -> None:
        sidecar.task.cancel()
        await asyncio.gather(sidecar.task, return_exceptions=True)
        await self._pusher.drop(pod)

    def _acknowledged(self, pod: ObjectKey) -> None:
        sidecar = self._sidecars.get(pod)
        if sidecar is not None and sidecar.live:
            self._report(pod)

    def _report(self, pod: ObjectKey) -> None:
        self._source.acknowledged(pod, self._overlay.plane_version(pod, self._pusher.acknowledged(pod)))

    def _refused(self, error: StateRefusedError) -> None:
        self._source.refused(error.pod, str(error))
