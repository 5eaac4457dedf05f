"""The control plane's core: it follows objects, and knows the newest state of every sidecar.

States hold no identities. A node asks for what takes a pod's sidecar to the newest state, lays the pod's SVID over it,
and says which version of the state the sidecar has then (`StateSource` in node/sidecars.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from math import inf

import msgspec

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Event, Upsert
from nginx_mesh.compile.check import ObjectWarning
from nginx_mesh.compile.engine import ChangedSidecars, Compiler
from nginx_mesh.compile.inbound import ProbeReader
from nginx_mesh.compile.reach import PolicyReach
from nginx_mesh.observe.tasks import TaskSet
from nginx_mesh.protocol.state import StateEntry, Update

from .acknowledgements import Acknowledgements
from .interfaces import Recorder
from .policystatus import PolicyStanding
from .registrations import Register, Registrations

# How long sidecars may take for the step between off and strict; one that is down must not hold up the others.
_STEP_SECONDS = 2.0

Node = Callable[[AbstractSet[ObjectKey]], None]
"""A node's part of the mesh. It is told of pods whose sidecars' state has changed, on its node or on others."""


class Plane:
    """Follows objects, and compiles the state of every sidecar from them.

    `objects` are those that there are at the start. `recorder` hears what is wrong with objects, and of sidecars that
    refuse their state. `first_version` is greater than any version that an earlier control plane gave out: milliseconds
    of the wall clock will do. `register` is told which identity each pod shall have. `policies_moved` hears of policies
    whose `standing` may be another.
    """

    def __init__(
        self,
        objects: Iterable[Object],
        settings: MeshSettings,
        *,
        recorder: Recorder,
        first_version: int,
        probes: ProbeReader,
        register: Register,
        policies_moved: Callable[[AbstractSet[ObjectKey]], None] = lambda _: None,
    ) -> None:
        self._recorder = recorder
        self._policies_moved = policies_moved
        self._settings = settings
        self._nodes: list[Node] = []
        self._warned: dict[ObjectKey, tuple[ObjectWarning, ...]] = {}
        self._tasks = TaskSet()
        self._catalog = Catalog()
        for obj in objects:
            self._catalog.apply(Upsert(obj))
        self._compiler = Compiler(self._catalog, settings, first_version=first_version, probes=probes)
        self._reach = PolicyReach(self._catalog, self._compiler)
        self._acknowledgements = Acknowledgements(self._compiler.unchanged_since)
        self._incomplete: set[ObjectKey] = set()
        self._had: list[float] | None = None
        self.registrations = Registrations(self._catalog, settings.trust_domain, register)
        self._warn_about(self._compiler.warnings)

    async def close(self) -> None:
        """Stop; sidecars go on with what they have."""
        await self._tasks.close()

    # What objects say.

    def apply(self, event: Event) -> None:
        """Take in a change of any object."""
        changes = self._catalog.apply(event)
        if changes:
            self._publish(self._compiler.apply(changes))
            self._warn_about(changes.objects)
            self._policies_moved(self._reach.follow(changes))
            self.registrations.follow(changes)

    def configure(self, settings: MeshSettings) -> None:
        """Apply the mesh's settings, live."""
        previous, self._settings = self._settings, settings
        if {previous.mtls_mode, settings.mtls_mode} == {"off", "strict"}:
            # Callers and callees do not learn of it in the same instant; permissive gets on with either.
            self._configure(msgspec.structs.replace(settings, mtls_mode="permissive"))
            self._tasks.start(self._configure_after_step(settings), f"change the mTLS mode to {settings.mtls_mode}")
        else:
            self._configure(settings)

    # What nodes ask and say (StateSource).

    def subscribe(self, node: Node) -> None:
        """Tell a node of pods whose sidecars' state changes, from now on."""
        self._nodes.append(node)

    def update_for(self, pod: ObjectKey, base: int | None) -> Update | None:
        """What takes a sidecar from version `base` to the newest state; all of it when `base` is None or too old.

        None when the pod has no sidecar. There is no identity in it.
        """
        return self._compiler.update_for(pod, base)

    def acknowledged(self, pod: ObjectKey, version: int | None) -> None:
        """A sidecar has this version of its state, as its node says; None when the node does not know."""
        self._had = None
        self._acknowledgements.set(pod, version)
        if version is not None:
            self._policies_moved(self._incomplete & self._reach.policies_at(pod))

    def refused(self, pod: ObjectKey, reason: str) -> None:
        """A sidecar refused its newest state, and goes on with the one that it had."""
        self._acknowledgements.settle(pod)
        self._recorder.record(pod, "Warning", "StateRefused", reason)

    def dropped(self, pod: ObjectKey) -> None:
        """A pod's sidecar is gone."""
        self._had = None
        self._acknowledgements.remove(pod)

    # How the mesh is.

    @property
    def catalog(self) -> Catalog:
        """The mesh as facts. To look at only."""
        return self._catalog

    @property
    def settings(self) -> MeshSettings:
        """The settings in force."""
        return self._settings

    @property
    def version(self) -> int:
        """The version of the newest state."""
        return self._compiler.version

    def own_state(self, pod: ObjectKey) -> Mapping[str, StateEntry]:
        """What the newest state of a pod's sidecar has of its own; empty where there is none."""
        return self._compiler.entries(pod)

    def state(self, pod: ObjectKey) -> Mapping[str, StateEntry | msgspec.Raw]:
        """The newest state of a pod's sidecar; empty when there is none."""
        update = self._compiler.update_for(pod, None)
        return {} if update is None else update.set_

    def policies(self) -> set[ObjectKey]:
        """Every traffic policy that there is."""
        return self._reach.policies()

    def policies_at(self, pod: ObjectKey) -> AbstractSet[ObjectKey]:
        """The traffic policies that concern a pod's sidecar."""
        return self._reach.policies_at(pod)

    def standing(self, policy: ObjectKey) -> PolicyStanding | None:
        """How far a policy is in force; None when there is no such policy."""
        reach = self._reach.get(policy)
        if reach is None:
            self._incomplete.discard(policy)
            return None
        if reach.pods is None:
            had = self._all_had()
            sidecars, updated = len(had), len(had) - bisect_left(had, reach.version)
        else:
            sidecars, updated = len(reach.pods), sum(self._has(pod) >= reach.version for pod in reach.pods)
        if updated < sidecars:
            self._incomplete.add(policy)
        else:
            self._incomplete.discard(policy)
        return PolicyStanding(reach, sidecars, updated)

    async def synced(self, timeout: float) -> None:
        """Wait until every live sidecar acknowledged all that was applied so far, at most `timeout` seconds."""
        await self._acknowledgements.wait(timeout)

    async def _configure_after_step(self, settings: MeshSettings) -> None:
        await self.synced(_STEP_SECONDS)
        if self._settings is settings:
            self._configure(settings)

    def _configure(self, settings: MeshSettings) -> None:
        self._publish(self._compiler.configure(settings))
        self._policies_moved(self._reach.follow_settings())

    def _publish(self, touched: ChangedSidecars) -> None:
        self._had = None
        pods = self._compiler.sidecars(touched)
        if pods:
            for node in self._nodes:
                node(pods)

    def _has(self, pod: ObjectKey) -> float:
        """Up to which version a sidecar has its state; infinity when nothing newer is for it, -1 when not known."""
        acknowledged = self._acknowledgements.versions.get(pod)
        if acknowledged is None:
            return -1
        return inf if self._compiler.unchanged_since(pod, acknowledged) else acknowledged

    def _all_had(self) -> list[float]:
        """What all sidecars have, sorted. Many policies are looked at between two changes of it."""
        if self._had is None:
            self._had = sorted(map(self._has, self._compiler.sidecars()))
        return self._had

    def _warn_about(self, keys: Iterable[ObjectKey]) -> None:
        for key in tuple(keys):
            warnings = self._compiler.warnings.get(key, ())
            for warning in warnings:
                if warning not in self._warned.get(key, ()):
                    message = f"{warning.field}: {warning.reason}"
                    self._recorder.record(key, "Warning", f"Upsert{key.kind}Failed", message)
            if warnings:
                self._warned[key] = warnings
            else:
                self._warned.pop(key, None)
