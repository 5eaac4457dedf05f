"""Pods, Services, and the endpoints of Services.

Every event updates the indexes, so its cost is in proportion to what it affects: for a pod its labels, Services and
ports; for a Service the pods that it selects, or the endpoints that EndpointSlices list for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.pods import Pod
from nginx_mesh.api.portprotocol import protocol_of
from nginx_mesh.api.services import EndpointSlice, Service

from .changes import Address, Changes, EndpointAddress, ServicePort, union
from .differences import PodFacts, pod_changes, remote_endpoint_changes, service_changes
from .multimap import MultiMap
from .records import Caller, PodRecord, Port, PortUse, ServiceRecord, pod_record, service_record, slice_record
from .remote import RemoteEndpoints

_Label = tuple[str, str, str]  # namespace, name, value


class Topology:
    """Pods, Services and their indexes. `remote_endpoints` are the endpoints that are not pods of this cluster."""

    def __init__(self) -> None:
        self.remote_endpoints = RemoteEndpoints()
        self._pods: dict[ObjectKey, PodRecord] = {}
        self._services: dict[ObjectKey, ServiceRecord] = {}
        self._by_address: MultiMap[str, ObjectKey] = MultiMap()
        self._by_vip: MultiMap[str, ObjectKey] = MultiMap()
        self._by_account: MultiMap[tuple[str, str], ObjectKey] = MultiMap()
        self._by_reference: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._by_label: MultiMap[_Label, ObjectKey] = MultiMap()
        self._by_selector: MultiMap[_Label, ObjectKey] = MultiMap()
        self._pods_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._services_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    # Pods and Services.

    def pods(self) -> Iterator[PodRecord]:
        """All pods."""
        return iter(self._pods.values())

    def pod(self, key: ObjectKey) -> PodRecord | None:
        """The pod of this key."""
        return self._pods.get(key)

    def services(self) -> Iterator[ServiceRecord]:
        """All Services whose endpoints are known."""
        return iter(self._services.values())

    def service(self, key: ObjectKey) -> ServiceRecord | None:
        """The Service of this key, if its endpoints are known."""
        return self._services.get(key)

    def pods_with_account(self, namespace: str, name: str) -> AbstractSet[ObjectKey]:
        """The pods that run as a ServiceAccount."""
        return self._by_account.get((namespace, name))

    def pods_behind(self, reference: ObjectKey) -> AbstractSet[ObjectKey]:
        """The pods of a Service or of a workload (Deployment, …), or the Pod itself."""
        return self._pods_of.get(reference) or self._by_reference.get(reference)

    def services_of(self, pod: ObjectKey) -> AbstractSet[ObjectKey]:
        """The Services that select a pod."""
        return self._services_of.get(pod)

    def references_to(self, pod: PodRecord) -> set[ObjectKey]:
        """All keys for which `pods_behind` includes this pod."""
        return {*pod.references, *self._services_of.get(pod.key)}

    def callers_behind(self, reference: ObjectKey) -> set[Caller]:
        """The pods behind a reference, as callers."""
        return {self._pods[key].caller for key in self.pods_behind(reference)}

    def addresses_behind(self, service: ServiceRecord) -> set[Address]:
        """The addresses of a Service's endpoints, ready or not, for callers that dial them without the Service."""
        pods = [self._pods[key] for key in self._pods_of.get(service.key)]
        addresses = {Address(ip, port) for pod in pods for ip in pod.addresses for port in self.ports_of(pod)}
        addresses.update(endpoint.address for endpoint in self.remote_endpoints.of_service(service))
        return addresses

    # Addresses.

    def addresses(self) -> set[Address]:
        """All addresses of pods, Services and remote endpoints."""
        addresses = {Address(ip, port) for pod in self.pods() for ip in pod.addresses for port in self.ports_of(pod)}
        addresses.update(Address(vip, port) for each in self.services() for vip in each.vips for port in each.ports)
        addresses.update(self.remote_endpoints.addresses())
        return addresses

    def service_ports(self) -> set[ServicePort]:
        """All ports of Services."""
        return {ServicePort(service.key, port) for service in self.services() for port in service.ports}

    def service_at(self, address: Address) -> ServiceRecord | None:
        """The Service that has this VIP and TCP port; the first by name when several claim it."""
        keys = (key for key in self._by_vip.get(address.ip) if address.port in self._services[key].ports)
        key = min(keys, default=None)
        return None if key is None else self._services[key]

    def pod_at(self, address: Address) -> tuple[PodRecord, PortUse] | None:
        """The pod that has this address and uses this TCP port; the youngest when several have it."""
        found: list[tuple[PodRecord, PortUse]] = []
        for key in self._by_address.get(address.ip):
            use = self.ports_of(self._pods[key]).get(address.port)
            if use is not None:
                found.append((self._pods[key], use))
        return max(found, key=lambda entry: _creation(entry[0]), default=None)

    def pod_with(self, ip: str) -> PodRecord | None:
        """The pod that has this address; the youngest when several have it."""
        pods = (self._pods[key] for key in self._by_address.get(ip))
        return max(pods, key=_creation, default=None)

    def ports_of(self, pod: PodRecord) -> dict[int, PortUse]:
        """The TCP ports of a pod: those it declares and those that Services target."""
        targeted: dict[int, list[tuple[ServiceRecord, Port]]] = {}
        for service in self._services_selecting(pod.key):
            for port in service.ports.values():
                number = service.target_of(port, pod)
                if number is not None:
                    targeted.setdefault(number, []).append((service, port))
        ports = {
            number: PortUse((protocol_of(port=number, name=name),), None, True)
            for number, name in pod.ports.items()
            if number not in targeted
        }
        for number, uses in targeted.items():
            first = min((service for service, _ in uses), key=lambda service: (not service.headless, service.key))
            protocols = tuple(sorted({port.protocol for _, port in uses}))
            headless = sorted(ServicePort(service.key, port.number) for service, port in uses if service.headless)
            ports[number] = PortUse(protocols, first.key, number in pod.ports, tuple(headless))
        return ports

    # Endpoints.

    def endpoints_of(self, service: ServiceRecord, port: int) -> set[EndpointAddress]:
        """The endpoints of one port of a Service."""
        if service.remote:
            return set(self.remote_endpoints.of_port(ServicePort(service.key, port)))
        return {
            endpoint
            for key in self._pods_of.get(service.key)
            for endpoint in self._endpoints(service, self._pods[key])
            if endpoint.port == port
        }

    def pod_of(self, endpoint: EndpointAddress) -> PodRecord | None:
        """The pod at this endpoint, None when there is none.

        The event of a new pod can arrive before the deletion of the pod that had its address: the younger one has it.
        """
        service = self._services.get(endpoint.service)
        if service is None:
            return None
        pods = (self._pods[key] for key in self._by_address.get(endpoint.ip) & self._pods_of.get(service.key))
        return max((pod for pod in pods if endpoint in self._endpoints(service, pod)), key=_creation, default=None)

    # Events.

    def set_pod(self, key: ObjectKey, pod: Pod | None) -> Changes:
        """Store a new or updated pod; None deletes it."""
        old, new = self._pods.get(key), None if pod is None else pod_record(pod)
        if old == new:
            return Changes()
        before = self._facts(key)
        if old is not None:
            self._remove_pod(old)
        if new is not None:
            self._add_pod(new)
        return union(Changes(objects=frozenset((key,))), pod_changes(before, self._facts(key)))

    def set_service(self, key: ObjectKey, service: Service | None) -> Changes:
        """Store a new or updated Service; None deletes it."""
        old, new = self._services.get(key), None if service is None else service_record(service)
        if old == new:
            return Changes()
        itself = service_changes(old, new)
        if old is not None and new is not None and replace(old, annotations=new.annotations) == new:
            self._services[key] = new
            return union(itself, remote_endpoint_changes(self.remote_endpoints.of_service(new)))
        members = self._pods_of.get(key) | (self._selected(new) if new is not None else set())
        before = {member: self._facts(member) for member in members}
        remote: set[EndpointAddress] = set()
        if old is not None:
            remote |= self.remote_endpoints.of_service(old)
            self._remove_service(old)
        if new is not None:
            self._add_service(new)
            remote |= self.remote_endpoints.of_service(new)
        differences = (pod_changes(before[member], self._facts(member)) for member in members)
        return union(itself, remote_endpoint_changes(remote), *differences)

    def set_slice(self, key: ObjectKey, slice_: EndpointSlice | None) -> Changes:
        """Store a new or updated EndpointSlice; None deletes it."""
        new = None if slice_ is None else slice_record(slice_)
        return remote_endpoint_changes(self.remote_endpoints.set_slice(key, new, self._remote_service))

    def _add_pod(self, pod: PodRecord) -> None:
        self._pods[pod.key] = pod
        for address in pod.addresses:
            self._by_address.add(address, pod.key)
        self._by_account.add((pod.key.namespace, pod.account), pod.key)
        for reference in pod.references:
            self._by_reference.add(reference, pod.key)
        for label in _labels(pod):
            self._by_label.add(label, pod.key)
            for key in self._by_selector.get(label):
                if self._services[key].selects(pod.labels):
                    self._pods_of.add(key, pod.key)
                    self._services_of.add(pod.key, key)

    def _remove_pod(self, pod: PodRecord) -> None:
        for key in tuple(self._services_of.get(pod.key)):
            self._pods_of.discard(key, pod.key)
            self._services_of.discard(pod.key, key)
        for label in _labels(pod):
            self._by_label.discard(label, pod.key)
        for reference in pod.references:
            self._by_reference.discard(reference, pod.key)
        self._by_account.discard((pod.key.namespace, pod.account), pod.key)
        for address in pod.addresses:
            self._by_address.discard(address, pod.key)
        del self._pods[pod.key]

    def _add_service(self, service: ServiceRecord) -> None:
        self._services[service.key] = service
        for vip in service.vips:
            self._by_vip.add(vip, service.key)
        if service.remote:
            self.remote_endpoints.add_service(service)
            return
        self._by_selector.add(_selector_label(service), service.key)
        for pod in self._selected(service):
            self._pods_of.add(service.key, pod)
            self._services_of.add(pod, service.key)

    def _remove_service(self, service: ServiceRecord) -> None:
        for pod in tuple(self._pods_of.get(service.key)):
            self._pods_of.discard(service.key, pod)
            self._services_of.discard(pod, service.key)
        if service.remote:
            self.remote_endpoints.remove_service(service)
        else:
            self._by_selector.discard(_selector_label(service), service.key)
        for vip in service.vips:
            self._by_vip.discard(vip, service.key)
        del self._services[service.key]

    def _remote_service(self, key: ObjectKey) -> ServiceRecord | None:
        service = self._services.get(key)
        return service if service is not None and service.remote else None

    def _selected(self, service: ServiceRecord) -> set[ObjectKey]:
        if service.remote:
            return set()
        namespace = service.key.namespace
        candidates = (self._by_label.get((namespace, name, value)) for name, value in service.selector.items())
        return {key for key in min(candidates, key=len) if service.selects(self._pods[key].labels)}

    def _services_selecting(self, pod: ObjectKey) -> list[ServiceRecord]:
        return [self._services[key] for key in self._services_of.get(pod)]

    def _endpoints(self, service: ServiceRecord, pod: PodRecord) -> Iterator[EndpointAddress]:
        ip = service.address_of(pod)
        if ip is None or not (pod.ready or service.publish_not_ready):
            return
        for port in service.ports.values():
            target = service.target_of(port, pod)
            if target is not None:
                yield EndpointAddress(service.key, port.number, ip, target)

    def _facts(self, key: ObjectKey) -> PodFacts:
        pod = self._pods.get(key)
        if pod is None:
            return PodFacts()
        services = self._services_selecting(key)
        return PodFacts(
            pod=pod,
            services=frozenset(service.key for service in services),
            ports=self.ports_of(pod),
            endpoints={endpoint for service in services for endpoint in self._endpoints(service, pod)},
        )


def _labels(pod: PodRecord) -> Iterator[_Label]:
    return ((pod.key.namespace, name, value) for name, value in pod.labels.items())


def _selector_label(service: ServiceRecord) -> _Label:
    """The label of a Service's selector by which the Service is indexed: one is enough, here the last by name."""
    name = max(service.selector)
    return service.key.namespace, name, service.selector[name]


def _creation(pod: PodRecord) -> tuple[str, ObjectKey]:
    return pod.created, pod.key
