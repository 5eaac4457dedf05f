"""Compilation that follows changes: the state of every sidecar, and what of it changed since any version.

Identities are no part of it: they never leave the node of their pod, which lays them over (node/overlay.py).

A change of the catalog is compiled once per view (see `outbound`) and once per sidecar whose own entries it touches;
a sidecar's update is put together from what its view and its own entries recorded since the version it has.
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
from nginx_mesh.compile.keys import breaker_key, cluster_name, destination_key, split_key
from nginx_mesh.protocol.state import Endpoint, MtlsMode, State, StateEntry, Update, cluster_key

from .annotated import effective_mode
from .breakers import breaker
from .check import ObjectWarning, check
from .inbound import ProbeReader, no_probes, own_entries
from .journal import Journal
from .outbound import destination, outbound, pod_cluster, service_cluster, service_endpoint
from .splits import split
from .view import Touch, View


def compile_state(
    catalog: Catalog,
    settings: MeshSettings,
    pod: ObjectKey,
    probes: ProbeReader = no_probes,
) -> State | None:
    """The whole state of one sidecar but its identity, None when there is no such meshed pod."""
    workload = catalog.topology.pod(pod)
    if workload is None or not workload.meshed:
        return None
    state = outbound(catalog, settings, effective_mode(settings, workload))
    state.update(own_entries(catalog, settings, workload, probes))
    return state


@dataclass(frozen=True, slots=True)
class Touched:
    """Whose state changed: `pods` for entries of their own, and every sidecar of `views`."""

    pods: AbstractSet[ObjectKey] = frozenset()
    views: AbstractSet[MtlsMode] = frozenset()


class _Sidecar:
    """A sidecar's own entries, from its first state or its last change to another view on."""

    __slots__ = ("entries", "journal", "mode")

    def __init__(self, mode: MtlsMode, version: int, capacity: int) -> None:
        self.mode = mode
        self.entries: dict[str, StateEntry] = {}
        self.journal: Journal[str] = Journal(version, capacity)

    def replace(self, entries: Mapping[str, StateEntry], version: int) -> bool:
        """Put these in place of all others. Whether that changed anything."""
        changed = [key for key in self.entries.keys() | entries.keys() if self.entries.get(key) != entries.get(key)]
        self.entries = dict(entries)
        for key in changed:
            self.journal.record(key, version)
        return bool(changed)


class Compiler:
    """Follows a catalog and the mesh's settings. Every change of the catalog must be given to `apply`, in order.

    `first_version` must be greater than any version an earlier run used; milliseconds of the wall clock will do. It
    only helps people who compare logs: no update ever builds on a version that this compiler did not hand out itself.
    `memory` is how many changed entries each view remembers; who is further behind gets a full state.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: MeshSettings,
        *,
        first_version: int,
        memory: int = 16384,
        probes: ProbeReader = no_probes,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._version = first_version
        self._memory = memory
        self._probes = probes
        self._views: dict[MtlsMode, View] = {}
        self._sidecars: dict[ObjectKey, _Sidecar] = {}
        self._in_view: dict[MtlsMode, set[ObjectKey]] = {"off": set(), "permissive": set(), "strict": set()}
        self._warnings: dict[ObjectKey, tuple[ObjectWarning, ...]] = {}
        self._compiled = 0
        self.apply(catalog.everything())

    @property
    def version(self) -> int:
        """The version of the newest state."""
        return self._version

    @property
    def compiled(self) -> int:
        """How many entries and endpoints were compiled so far: the work done, for metrics and tests."""
        return self._compiled

    @property
    def warnings(self) -> Mapping[ObjectKey, tuple[ObjectWarning, ...]]:
        """What is wrong with objects that the mesh read; an object that is sound has no entry."""
        return self._warnings

    def sidecars(self, touched: Touched | None = None) -> set[ObjectKey]:
        """Pods that have a sidecar; with `touched`, those whose state it changed."""
        if touched is None:
            return set(self._sidecars)
        return set(touched.pods).union(*(self._in_view[mode] for mode in touched.views))

    def entries(self, pod: ObjectKey) -> Mapping[str, StateEntry]:
        """The entries that are a sidecar's own; none where there is no sidecar."""
        sidecar = self._sidecars.get(pod)
        return {} if sidecar is None else sidecar.entries

    def unchanged_since(self, pod: ObjectKey, version: int) -> bool:
        """Whether the newest state of a sidecar is that of an earlier version; not where that is too long ago."""
        sidecar = self._sidecars.get(pod)
        if sidecar is None:
            return False
        return sidecar.journal.since(version) == [] and self._views[sidecar.mode].since(version) == []

    def apply(self, changes: Changes) -> Touched:
        """Compile what the catalog says was touched."""
        self._version += 1
        views = self._follow_outbound(changes)
        pods = {pod for pod in changes.pods if self._compile_sidecar(pod)}
        self._drop_unused_views()
        for key in changes.objects:
            self._check(key)
        return Touched(pods=pods, views=views)

    def configure(self, settings: MeshSettings) -> Touched:
        """Compile everything for these settings of the mesh; only what differs is touched."""
        if settings == self._settings:
            return Touched()
        self._settings = settings
        self._version += 1
        views = {mode for mode, view in self._views.items() if self._recompile(mode, view)}
        pods = {pod for pod in tuple(self._sidecars) if self._compile_sidecar(pod)}
        self._drop_unused_views()
        return Touched(pods=pods, views=views & self._views.keys())

    def update_for(self, pod: ObjectKey, base: int | None) -> Update | None:
        """What takes a sidecar that has version `base` to the newest; all of it when that cannot be told.

        None when there is no such sidecar. A sidecar that has the newest version gets an update that changes nothing.
        """
        sidecar = self._sidecars.get(pod)
        if sidecar is None:
            return None
        view = self._views[sidecar.mode]
        if base is not None and base <= self._version:
            own, shared = sidecar.journal.since(base), view.since(base)
            if own is not None and shared is not None:
                return self._difference(base, sidecar, own, view, shared)
        return Update(base=None, version=self._version, set_={**view.everything(), **sidecar.entries})

    def _difference(
        self, base: int, sidecar: _Sidecar, own: Sequence[str], view: View, shared: Sequence[Touch]
    ) -> Update:
        entries: dict[str, StateEntry | msgspec.Raw] = {}
        gone: list[str] = []
        whole = {key for key, address in shared if address is None}
        for key, entry in [(key, view.encoded(key)) for key in whole] + [
            (key, sidecar.entries.get(key)) for key in own
        ]:
            if entry is None:
                gone.append(key)
            else:
                entries[key] = entry
        endpoints: dict[str, dict[str, Endpoint | None]] = {}
        for name, address in shared:
            if address is not None and cluster_key(name) not in whole:
                endpoints.setdefault(name, {})[address] = view.endpoint(name, address)
        return Update(base=base, version=self._version, set_=entries, delete=gone, endpoints=endpoints)

    def _follow_outbound(self, changes: Changes) -> set[MtlsMode]:
        return {mode for mode, view in self._views.items() if self._follow(mode, view, changes)}

    def _follow(self, mode: MtlsMode, view: View, changes: Changes) -> bool:
        catalog, settings, version = self._catalog, self._settings, self._version
        touched = False
        for port in changes.services:
            entry = service_cluster(catalog, settings, mode, port)
            self._compiled += 1 + (len(entry.endpoints) if entry is not None else 0)
            touched |= view.set(cluster_key(cluster_name(port)), entry, version)
        for address in changes.addresses:
            self._compiled += 2
            touched |= view.set(destination_key(address), destination(catalog, address), version)
            alone = pod_cluster(catalog, settings, mode, address)
            touched |= view.set(cluster_key(socket_address(*address)), alone, version)
        for endpoint in changes.endpoints:
            if endpoint.service_port not in changes.services:
                self._compiled += 1
                peer = service_endpoint(catalog, settings, mode, endpoint)
                name, at = cluster_name(endpoint.service_port), socket_address(endpoint.ip, endpoint.target)
                touched |= view.set_endpoint(name, at, peer, version)
        self._compiled += len(changes.splits) + len(changes.breakers)
        for port in changes.splits:
            touched |= view.set(split_key(port), split(catalog, port), version)
        for port in changes.breakers:
            touched |= view.set(breaker_key(port), breaker(catalog, port), version)
        return touched

    def _recompile(self, mode: MtlsMode, view: View) -> bool:
        entries = outbound(self._catalog, self._settings, mode)
        self._compiled += len(entries)
        changed = [view.set(key, entries.get(key), self._version) for key in entries.keys() | view.keys()]
        return any(changed)

    def _compile_sidecar(self, pod: ObjectKey) -> bool:
        workload = self._catalog.topology.pod(pod)
        sidecar = self._sidecars.get(pod)
        if workload is None or not workload.meshed:
            if sidecar is not None:
                self._in_view[sidecar.mode].discard(pod)
                del self._sidecars[pod]
            return False
        mode = effective_mode(self._settings, workload)
        moved = sidecar is None or sidecar.mode != mode
        if sidecar is None or moved:
            if sidecar is not None:
                self._in_view[sidecar.mode].discard(pod)
            sidecar = self._sidecars[pod] = _Sidecar(mode, self._version, self._memory)
            self._in_view[mode].add(pod)
            self._open_view(mode)
        entries = own_entries(self._catalog, self._settings, workload, self._probes)
        self._compiled += len(entries)
        return sidecar.replace(entries, self._version) or moved

    def _open_view(self, mode: MtlsMode) -> None:
        if mode not in self._views:
            entries = outbound(self._catalog, self._settings, mode)
            self._compiled += len(entries)
            self._views[mode] = View(entries, self._version, self._memory)

    def _drop_unused_views(self) -> None:
        for mode in [mode for mode in self._views if not self._in_view[mode]]:
            del self._views[mode]

    def _check(self, key: ObjectKey) -> None:
        warnings = check(self._catalog, key)
        if warnings:
            self._warnings[key] = warnings
        else:
            self._warnings.pop(key, None)
