"""What the control plane needs of the home that it runs in: a local mesh, or a Kubernetes cluster.

Objects are read through `nginx_mesh.api.resource.ObjectReader`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.resource import Resource
from nginx_mesh.protocol.control import Tap
from nginx_mesh.protocol.standing import SidecarReport

EventType = Literal["Normal", "Warning"]


class StatusWriter(Protocol):
    """Writes the status of objects. Nobody else writes the statuses that it is given."""

    async def write(self, statuses: Mapping[ObjectKey, Resource]) -> None:
        """Store these statuses; objects that are gone are passed over. Raises an exception when it cannot."""


class Recorder(Protocol):
    """Records Kubernetes Events about objects."""

    def record(self, key: ObjectKey, kind: EventType, reason: str, message: str) -> None:
        """Record that this happened to an object now."""

    def warn_once(self, key: ObjectKey, reason: str, message: str, *, or_said_as: str) -> None:
        """Record a Warning, unless one with this message exists for the object, with this reason or `or_said_as`."""


class EventReader(Protocol):
    """Reads the Events that were recorded."""

    def __len__(self) -> int:
        """How many distinct events there are."""

    def list(self, namespace: str | None = None) -> list[Resource]:
        """Events of one namespace or of all, as v1 Event objects, the latest last."""

    def latest_warning(self, key: ObjectKey) -> str:
        """The message of the latest Warning about an object, "" when there is none."""


class Sidecars(Protocol):
    """The sidecars of the mesh, as their nodes know them."""

    def all(self) -> Iterable[SidecarReport]:
        """Every sidecar, and how far it is."""

    def live(self) -> Mapping[ObjectKey, str]:
        """The pods whose sidecars have had a state, with their uids."""

    def public_identity(self, pod: ObjectKey) -> Mapping[str, Any] | None:
        """A sidecar's identity without the private key (see protocol.state.Identity), None while it has none."""

    async def metrics(self, pod: ObjectKey, timeout: float) -> str:
        """What a sidecar exposes to Prometheus. `timeout` in seconds. Raises SidecarUnreachableError."""

    async def tap(self, taps: Mapping[ObjectKey, Tap]) -> None:
        """Tell sidecars which requests to report. One that cannot be told is passed over."""
