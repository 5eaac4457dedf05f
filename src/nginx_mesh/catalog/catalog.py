"""The catalog: one place that all events go to and all facts come from."""

from __future__ import annotations

from collections.abc import Iterable

from nginx_mesh.api.core import EndpointSlice, Pod, Service
from nginx_mesh.api.meta import Object, ObjectKey

from .changes import Address, Changes, Delete, Event, ServicePort
from .policies import Affected, Policies
from .records import Balanced
from .topology import Caller, Topology


class Catalog:
    """`topology` are pods and Services, `policies` what is said about them. Both change by `apply` only."""

    def __init__(self) -> None:
        self.topology = Topology()
        self.policies = Policies()
        self._sources: dict[ObjectKey, set[Caller]] = {}

    def apply(self, event: Event) -> Changes:
        """Take in an event. Kinds that the mesh does not act on change nothing."""
        key, obj = (event.key, None) if isinstance(event, Delete) else (event.obj.key, event.obj)
        if key.kind == Pod.KIND:
            return self._with_limited(self.topology.set_pod(key, obj if isinstance(obj, Pod) else None))
        if key.kind == Service.KIND:
            before = self.topology.service(key)
            changes = self.topology.set_service(key, obj if isinstance(obj, Service) else None)
            return self._with_limited(self._with_diverted(changes, before, self.topology.service(key)))
        if key.kind == EndpointSlice.KIND:
            return self.topology.set_slice(key, obj if isinstance(obj, EndpointSlice) else None)
        return self._set_policy(key, obj)

    def everything(self) -> Changes:
        """All facts there are, as changes from nothing."""
        topology = self.topology
        pods = list(topology.pods())
        services = list(topology.services())
        addresses = {Address(ip, port) for pod in pods for ip in pod.addresses for port in topology.ports_of(pod)}
        addresses.update(Address(vip, port) for service in services for vip in service.vips for port in service.ports)
        addresses.update(topology.remotes.addresses())
        ports = frozenset(ServicePort(service.key, port) for service in services for port in service.ports)
        return Changes(
            pods=frozenset(pod.key for pod in pods),
            addresses=frozenset(addresses),
            services=ports,
            splits=ports,
            breakers=ports,
            objects=frozenset({pod.key for pod in pods} | {service.key for service in services}) | self.policies.keys(),
        )

    def _set_policy(self, key: ObjectKey, obj: Object | None) -> Changes:
        affected = self.policies.set(key, obj)
        for reference in affected.sources:
            if self.policies.limited_by_source(reference):
                self._sources[reference] = self.topology.callers_behind(reference)
            else:
                self._sources.pop(reference, None)
        return Changes(
            pods=self._pods_of(affected),
            addresses=frozenset().union(*map(self.topology.addresses_behind, self._without_vip(affected.starts))),
            services=self._ports_of(service.key for service in self._without_vip(affected.targets)),
            splits=self._ports_of(affected.splits),
            breakers=self._ports_of(affected.breakers),
            objects=affected.objects,
        )

    def _without_vip(self, services: Iterable[ObjectKey]) -> list[Balanced]:
        found = map(self.topology.service, services)
        return [service for service in found if service is not None and not service.vips]

    def _ports_of(self, services: Iterable[ObjectKey]) -> frozenset[ServicePort]:
        found = (service for key in services if (service := self.topology.service(key)) is not None)
        return frozenset(ServicePort(service.key, port) for service in found for port in service.ports)

    def _with_diverted(self, changes: Changes, before: Balanced | None, after: Balanced | None) -> Changes:
        """Splits and breakers know the ports of all Services that they name."""
        records = [record for record in (before, after) if record is not None]
        if not records or (len(records) == 2 and records[0].ports == records[1].ports):
            return changes
        key, policies = records[0].key, self.policies
        own = frozenset(ServicePort(key, port) for record in records for port in record.ports)
        splits, breakers = policies.splits.naming(key), policies.breakers.naming(key)
        touched = Changes(
            splits=own | self._ports_of({ends.start for each in splits if (ends := policies.splits.ends(each))}),
            breakers=own | self._ports_of({ends.start for each in breakers if (ends := policies.breakers.ends(each))}),
            objects=frozenset(splits | breakers),
        )
        return Changes.of((changes, touched))

    def _with_limited(self, changes: Changes) -> Changes:
        """A rate limit knows its sources by their pods' accounts and addresses."""
        touched = [changes]
        for reference in changes.references & self._sources.keys():
            callers = self.topology.callers_behind(reference)
            if callers != self._sources[reference]:
                self._sources[reference] = callers
                affected = self.policies.affected_by_source(reference)
                touched.append(Changes(pods=self._pods_of(affected)))
        return Changes.of(touched) if len(touched) > 1 else changes

    def _pods_of(self, affected: Affected) -> frozenset[ObjectKey]:
        pods: set[ObjectKey] = set()
        for namespace, account in affected.accounts:
            pods |= self.topology.pods_with_account(namespace, account)
        for reference in affected.destinations:
            pods |= self.topology.pods_behind(reference)
        return frozenset(pods)
