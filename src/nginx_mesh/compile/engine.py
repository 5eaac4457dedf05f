"""Incremental compilation: the state of every sidecar, and how it differs from any recent version.

The state holds no identities (SVIDs): those never leave the node of their pod, which adds them (node/overlay.py).

A change of the catalog is compiled once for each mTLS mode (see `outbound`) and once for each sidecar whose own entries
it affects. A sidecar's update consists of the shared entries and own entries that changed since the version it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import msgspec

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.addresses import socket_address
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Changes
from nginx_mesh.compile.keys import breaker_key, cluster_name, split_key
from nginx_mesh.protocol.state import Endpoint, MtlsMode, State, StateEntry, Update, cluster_key

from .breakers import breaker
from .changelog import ChangeLog
from .check import ObjectWarning, check
from .effective import effective_mode
from .inbound import ProbeReader, no_probes, own_entries
from .outbound import address_entries, outbound, service_cluster, service_endpoint
from .sharedentries import EntryChange, SharedEntries
from .splits import split


def compile_state(
    catalog: Catalog,
    settings: MeshSettings,
    pod: ObjectKey,
    probes: ProbeReader = no_probes,
) -> State | None:
    """The whole state of one sidecar except its identity; None when there is no such pod or it is not meshed."""
    record = catalog.topology.pod(pod)
    if record is None or not record.meshed:
        return None
    state = outbound(catalog, settings, effective_mode(settings, record))
    state.update(own_entries(catalog, settings, record, probes))
    return state


@dataclass(frozen=True, slots=True)
class ChangedSidecars:
    """The sidecars whose state changed: in own entries those of `pods`, in shared entries all of the mTLS `modes`."""

    pods: AbstractSet[ObjectKey] = frozenset()
    modes: AbstractSet[MtlsMode] = frozenset()


class _Sidecar:
    """A sidecar's own entries. Its log begins with its first state, or with its last change of mode."""

    __slots__ = ("changelog", "entries", "mode")

    def __init__(self, mode: MtlsMode, version: int, capacity: int) -> None:
        self.mode = mode
        self.entries: dict[str, StateEntry] = {}
        self.changelog: ChangeLog[str] = ChangeLog(version, capacity)

    def replace(self, entries: Mapping[str, StateEntry], version: int) -> bool:
        """Replace all entries. Returns whether any of them changed."""
        changed = [key for key in self.entries.keys() | entries.keys() if self.entries.get(key) != entries.get(key)]
        self.entries = dict(entries)
        for key in changed:
            self.changelog.record(key, version)
        return bool(changed)


class Compiler:
    """Follows a catalog and the mesh's settings. Every change of the catalog must be given to `apply`, in order.

    `first_version` should be greater than any version of an earlier run, such as milliseconds of the wall clock. This
    only helps people who compare logs: updates build only on versions that this compiler has issued itself.
    `changelog_capacity` is how many changed entries each log holds; a sidecar that is further behind gets a full state.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: MeshSettings,
        *,
        first_version: int,
        changelog_capacity: int = 16384,
        probes: ProbeReader = no_probes,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._version = first_version
        self._changelog_capacity = changelog_capacity
        self._probes = probes
        self._shared: dict[MtlsMode, SharedEntries] = {}
        self._sidecars: dict[ObjectKey, _Sidecar] = {}
        self._pods_by_mode: dict[MtlsMode, set[ObjectKey]] = {"off": set(), "permissive": set(), "strict": set()}
        self._warnings: dict[ObjectKey, tuple[ObjectWarning, ...]] = {}
        self._compiled = 0
        self.apply(catalog.initial_changes())

    @property
    def version(self) -> int:
        """The version of the newest state."""
        return self._version

    @property
    def compiled(self) -> int:
        """How many entries and endpoints were compiled so far: a measure of the work done."""
        return self._compiled

    @property
    def warnings(self) -> Mapping[ObjectKey, tuple[ObjectWarning, ...]]:
        """The warnings about each object; an object without warnings is not in it."""
        return self._warnings

    def sidecars(self, changed: ChangedSidecars | None = None) -> set[ObjectKey]:
        """The pods that have a sidecar; with `changed`, those whose sidecar's state changed."""
        if changed is None:
            return set(self._sidecars)
        return set(changed.pods).union(*(self._pods_by_mode[mode] for mode in changed.modes))

    def entries(self, pod: ObjectKey) -> Mapping[str, StateEntry]:
        """A sidecar's own entries; none when the pod has no sidecar."""
        sidecar = self._sidecars.get(pod)
        return {} if sidecar is None else sidecar.entries

    def unchanged_since(self, pod: ObjectKey, version: int) -> bool:
        """Whether a sidecar's state is still that of `version`; False when the logs do not reach back so far."""
        sidecar = self._sidecars.get(pod)
        if sidecar is None:
            return False
        return sidecar.changelog.since(version) == [] and self._shared[sidecar.mode].since(version) == []

    def apply(self, changes: Changes) -> ChangedSidecars:
        """Compile what changed in the catalog."""
        self._version += 1
        modes = {mode for mode, shared in self._shared.items() if self._update_shared(mode, shared, changes)}
        pods = {pod for pod in changes.pods if self._compile_sidecar(pod)}
        self._drop_unused_modes()
        for key in changes.objects:
            self._check(key)
        return ChangedSidecars(pods=pods, modes=modes)

    def configure(self, settings: MeshSettings) -> ChangedSidecars:
        """Compile everything again with these settings of the mesh."""
        if settings == self._settings:
            return ChangedSidecars()
        self._settings = settings
        self._version += 1
        modes = {mode for mode, shared in self._shared.items() if self._recompile_shared(mode, shared)}
        pods = {pod for pod in tuple(self._sidecars) if self._compile_sidecar(pod)}
        self._drop_unused_modes()
        return ChangedSidecars(pods=pods, modes=modes & self._shared.keys())

    def update_for(self, pod: ObjectKey, base: int | None) -> Update | None:
        """The update that brings a sidecar from version `base` to the newest version.

        It is a full state when `base` is None or when the logs do not reach back so far. None when there is no such
        sidecar. For a sidecar that has the newest version, the update changes nothing.
        """
        sidecar = self._sidecars.get(pod)
        if sidecar is None:
            return None
        shared = self._shared[sidecar.mode]
        if base is not None and base <= self._version:
            own_changes, shared_changes = sidecar.changelog.since(base), shared.since(base)
            if own_changes is not None and shared_changes is not None:
                return self._difference(base, sidecar, own_changes, shared, shared_changes)
        return Update(base=None, version=self._version, set_={**shared.all_encoded(), **sidecar.entries})

    def _difference(
        self,
        base: int,
        sidecar: _Sidecar,
        own_changes: Sequence[str],
        shared: SharedEntries,
        shared_changes: Sequence[EntryChange],
    ) -> Update:
        entries: dict[str, StateEntry | msgspec.Raw] = {}
        deleted: list[str] = []
        whole = {key for key, address in shared_changes if address is None}
        for key, entry in [(key, shared.encoded(key)) for key in whole] + [
            (key, sidecar.entries.get(key)) for key in own_changes
        ]:
            if entry is None:
                deleted.append(key)
            else:
                entries[key] = entry
        endpoints: dict[str, dict[str, Endpoint | None]] = {}
        for name, address in shared_changes:
            if address is not None and cluster_key(name) not in whole:
                endpoints.setdefault(name, {})[address] = shared.endpoint(name, address)
        return Update(base=base, version=self._version, set_=entries, delete=deleted, endpoints=endpoints)

    def _update_shared(self, mode: MtlsMode, shared: SharedEntries, changes: Changes) -> bool:
        """Compile the changes for one mode. Returns whether any entry changed."""
        catalog, settings, version = self._catalog, self._settings, self._version
        changed = False
        for port in changes.services:
            cluster = service_cluster(catalog, settings, mode, port)
            self._compiled += 1 + (len(cluster.endpoints) if cluster is not None else 0)
            changed |= shared.set(cluster_key(cluster_name(port)), cluster, version)
        for address in changes.addresses:
            for key, entry in address_entries(catalog, settings, mode, address):
                self._compiled += 1
                changed |= shared.set(key, entry, version)
        for each in changes.endpoints:
            if each.service_port not in changes.services:
                self._compiled += 1
                endpoint = service_endpoint(catalog, settings, mode, each)
                name, at = cluster_name(each.service_port), socket_address(*each.address)
                changed |= shared.set_endpoint(name, at, endpoint, version)
        self._compiled += len(changes.splits) + len(changes.breakers)
        for port in changes.splits:
            changed |= shared.set(split_key(port), split(catalog, port), version)
        for port in changes.breakers:
            changed |= shared.set(breaker_key(port), breaker(catalog, port), version)
        return changed

    def _recompile_shared(self, mode: MtlsMode, shared: SharedEntries) -> bool:
        """Compile all entries of one mode. Returns whether any of them changed."""
        entries = outbound(self._catalog, self._settings, mode)
        self._compiled += len(entries)
        changed = [shared.set(key, entries.get(key), self._version) for key in entries.keys() | shared.keys()]
        return any(changed)

    def _compile_sidecar(self, pod: ObjectKey) -> bool:
        """Compile a sidecar's own entries. Returns whether its state changed, also by another mode."""
        record = self._catalog.topology.pod(pod)
        sidecar = self._sidecars.get(pod)
        if record is None or not record.meshed:
            if sidecar is not None:
                self._pods_by_mode[sidecar.mode].discard(pod)
                del self._sidecars[pod]
            return False
        mode = effective_mode(self._settings, record)
        other_mode = sidecar is None or sidecar.mode != mode
        if sidecar is None or other_mode:
            if sidecar is not None:
                self._pods_by_mode[sidecar.mode].discard(pod)
            sidecar = self._sidecars[pod] = _Sidecar(mode, self._version, self._changelog_capacity)
            self._pods_by_mode[mode].add(pod)
            self._add_mode(mode)
        entries = own_entries(self._catalog, self._settings, record, self._probes)
        self._compiled += len(entries)
        return sidecar.replace(entries, self._version) or other_mode

    def _add_mode(self, mode: MtlsMode) -> None:
        if mode not in self._shared:
            entries = outbound(self._catalog, self._settings, mode)
            self._compiled += len(entries)
            self._shared[mode] = SharedEntries(entries, self._version, self._changelog_capacity)

    def _drop_unused_modes(self) -> None:
        for mode in [mode for mode in self._shared if not self._pods_by_mode[mode]]:
            del self._shared[mode]

    def _check(self, key: ObjectKey) -> None:
        warnings = check(self._catalog, key)
        if warnings:
            self._warnings[key] = warnings
        else:
            self._warnings.pop(key, None)
