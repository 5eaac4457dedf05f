"""The DNS names of pods, for their certificates: those of the Services that select them."""

from __future__ import annotations

from collections.abc import Iterable

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Changes
from nginx_mesh.catalog.multimap import MultiMap


class DnsNames:
    """Follows a catalog for chosen pods. The cost of a change is in proportion to the pods that it affects."""

    def __init__(self, catalog: Catalog, cluster_domain: str = "cluster.local") -> None:
        self._catalog = catalog
        self._cluster_domain = cluster_domain
        self._services: dict[ObjectKey, frozenset[ObjectKey]] = {}
        self._pods: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    def follow(self, pod: ObjectKey) -> tuple[str, ...]:
        """Start to follow a pod: from now on `changed` reports it. Returns its present names."""
        services = frozenset(self._catalog.topology.services_of(pod))
        self._set(pod, services)
        return tuple(name for service in sorted(services) for name in self._names(service))

    def forget(self, pod: ObjectKey) -> None:
        """Stop following a pod."""
        self._set(pod, frozenset())
        self._services.pop(pod, None)

    def changed(self, changes: Changes) -> set[ObjectKey]:
        """The followed pods whose names differ from those that `follow` returned."""
        candidates = {key for key in changes.pods if key in self._services}
        for reference in changes.references:
            if reference.kind == "Service":
                candidates.update(self._pods.get(reference))
                candidates.update(self._catalog.topology.pods_behind(reference))
        return {
            pod
            for pod in candidates & self._services.keys()
            if self._services[pod] != frozenset(self._catalog.topology.services_of(pod))
        }

    def _set(self, pod: ObjectKey, services: frozenset[ObjectKey]) -> None:
        before = self._services.get(pod, frozenset())
        for gone in before - services:
            self._pods.discard(gone, pod)
        for new in services - before:
            self._pods.add(new, pod)
        self._services[pod] = services

    def _names(self, service: ObjectKey) -> Iterable[str]:
        short = f"{service.name}.{service.namespace}"
        return short, f"{short}.svc", f"{short}.svc.{self._cluster_domain}"
