"""The catalog: it takes in all events, and everything that is compiled is read from it."""

from __future__ import annotations

from collections.abc import Iterable

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.services import EndpointSlice, Service

from .changes import Changes, Delete, Event, ServicePort, union
from .policies import Policies, PolicyChanges
from .records import Caller, ServiceRecord
from .topology import Topology


class Catalog:
    """`topology` has the pods and Services, `policies` the traffic policies. Only `apply` changes them."""

    def __init__(self) -> None:
        self.topology = Topology()
        self.policies = Policies()
        # The callers behind every reference that a RateLimit names as a source.
        self._limited_callers: dict[ObjectKey, set[Caller]] = {}

    def apply(self, event: Event) -> Changes:
        """Take in an event. Objects of kinds that the mesh does not act on change nothing."""
        key, obj = (event.key, None) if isinstance(event, Delete) else (event.obj.key, event.obj)
        if key.kind == Pod.KIND:
            return self._with_rate_limits(self.topology.set_pod(key, obj if isinstance(obj, Pod) else None))
        if key.kind == Service.KIND:
            before = self.topology.service(key)
            changes = self.topology.set_service(key, obj if isinstance(obj, Service) else None)
            after = self.topology.service(key)
            return self._with_rate_limits(self._with_routing_policies(changes, before, after))
        if key.kind == EndpointSlice.KIND:
            return self.topology.set_slice(key, obj if isinstance(obj, EndpointSlice) else None)
        return self._set_policy(key, obj)

    def initial_changes(self) -> Changes:
        """Changes that name everything in the catalog, for a follower that starts with nothing."""
        topology = self.topology
        pods = frozenset(pod.key for pod in topology.pods())
        ports = frozenset(topology.service_ports())
        return Changes(
            pods=pods,
            addresses=frozenset(topology.addresses()),
            services=ports,
            splits=ports,
            breakers=ports,
            objects=pods.union((service.key for service in topology.services()), self.policies.keys()),
        )

    def _set_policy(self, key: ObjectKey, obj: Object | None) -> Changes:
        affected = self.policies.set(key, obj)
        for reference in affected.sources:
            if self.policies.is_limited_source(reference):
                self._limited_callers[reference] = self.topology.callers_behind(reference)
            else:
                self._limited_callers.pop(reference, None)
        # Pods of a Service without VIPs are dialled by their own addresses, whose destinations name the Service when it
        # is a root. A backend without VIPs has clusters only because it is a backend.
        return Changes(
            pods=self._pods_of(affected),
            addresses=frozenset().union(*map(self.topology.addresses_behind, self._without_vips(affected.roots))),
            services=self._ports_of(service.key for service in self._without_vips(affected.backends)),
            splits=self._ports_of(affected.splits),
            breakers=self._ports_of(affected.breakers),
            objects=affected.objects,
        )

    def _without_vips(self, services: Iterable[ObjectKey]) -> list[ServiceRecord]:
        found = map(self.topology.service, services)
        return [service for service in found if service is not None and not service.vips]

    def _ports_of(self, services: Iterable[ObjectKey]) -> frozenset[ServicePort]:
        found = (service for key in services if (service := self.topology.service(key)) is not None)
        return frozenset(ServicePort(service.key, port) for service in found for port in service.ports)

    def _with_routing_policies(
        self, changes: Changes, before: ServiceRecord | None, after: ServiceRecord | None
    ) -> Changes:
        """Add the TrafficSplits and CircuitBreakers that a Service affects: they depend on its ports."""
        records = [record for record in (before, after) if record is not None]
        if not records or (len(records) == 2 and records[0].ports == records[1].ports):
            return changes
        key, policies = records[0].key, self.policies
        own = frozenset(ServicePort(key, port) for record in records for port in record.ports)
        splits, breakers = policies.splits.naming(key), policies.breakers.naming(key)
        split_roots = {named.root for policy in splits if (named := policies.splits.services(policy))}
        breaker_roots = {named.root for policy in breakers if (named := policies.breakers.services(policy))}
        affected = Changes(
            splits=own | self._ports_of(split_roots),
            breakers=own | self._ports_of(breaker_roots),
            objects=frozenset(splits | breakers),
        )
        return union(changes, affected)

    def _with_rate_limits(self, changes: Changes) -> Changes:
        """Add the pods with rate limits whose sources changed: a limit names its callers' accounts and addresses."""
        parts = [changes]
        for reference in changes.references & self._limited_callers.keys():
            callers = self.topology.callers_behind(reference)
            if callers != self._limited_callers[reference]:
                self._limited_callers[reference] = callers
                parts.append(Changes(pods=self._pods_of(self.policies.affected_by_source(reference))))
        return union(*parts) if len(parts) > 1 else changes

    def _pods_of(self, affected: PolicyChanges) -> frozenset[ObjectKey]:
        pods: set[ObjectKey] = set()
        for namespace, account in affected.accounts:
            pods |= self.topology.pods_with_account(namespace, account)
        for reference in affected.destinations:
            pods |= self.topology.pods_behind(reference)
        return frozenset(pods)
