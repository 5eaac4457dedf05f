"""Pods, Services, and what stands behind which Service.

Every index here is kept by the events themselves, so that an event costs in proportion to what it touches: a pod's
event to its labels, Services and ports; a Service's event to the pods it selects, or to what slices list for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from nginx_mesh.api.core import EndpointSlice, Pod, Service
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.portprotocol import PortProtocol, protocol_of

from .changes import Address, Changes, EndpointAddress, ServicePort
from .multimap import MultiMap
from .records import Balanced, Port, Workload, balanced, endpoint_slice, workload
from .remote import Remotes

_Label = tuple[str, str, str]  # namespace, name, value


@dataclass(frozen=True, slots=True)
class PortUse:
    """A TCP port of a pod: `protocols` of the Services that target it, sorted, or its own when none does.

    More than one protocol means that Services disagree. `service` is one that targets it (a headless one first, then
    by name), for metrics; None when none does. `declared` tells whether it is among the container's ports.
    `headless` are the ports of headless Services that target it, sorted: who dials the pod may have meant any of them.
    """

    protocols: tuple[PortProtocol, ...]
    service: ObjectKey | None
    declared: bool
    headless: tuple[ServicePort, ...] = ()


class Caller(NamedTuple):
    """A pod as those that it calls may know it: by its account (namespace, ServiceAccount) and its addresses."""

    account: tuple[str, str]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that anything else derives from one pod."""

    pod: Workload | None = None
    services: AbstractSet[ObjectKey] = frozenset()
    ports: Mapping[int, PortUse] = field(default_factory=dict)
    endpoints: AbstractSet[EndpointAddress] = frozenset()


class Topology:
    """Pods and balanced Services, with their indices; `remotes` are the endpoints that are no pods of ours."""

    def __init__(self) -> None:
        self.remotes = Remotes()
        self._pods: dict[ObjectKey, Workload] = {}
        self._services: dict[ObjectKey, Balanced] = {}
        self._by_address: MultiMap[str, ObjectKey] = MultiMap()
        self._by_vip: MultiMap[str, ObjectKey] = MultiMap()
        self._by_account: MultiMap[tuple[str, str], ObjectKey] = MultiMap()
        self._by_reference: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._by_label: MultiMap[_Label, ObjectKey] = MultiMap()
        self._by_selector: MultiMap[_Label, ObjectKey] = MultiMap()
        self._pods_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        self._services_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()

    # What there is.

    def pods(self) -> Iterator[Workload]:
        """Every pod."""
        return iter(self._pods.values())

    def pod(self, key: ObjectKey) -> Workload | None:
        """The pod of this key."""
        return self._pods.get(key)

    def services(self) -> Iterator[Balanced]:
        """Every Service whose endpoints are known."""
        return iter(self._services.values())

    def service(self, key: ObjectKey) -> Balanced | None:
        """The Service of this key, if its endpoints are known."""
        return self._services.get(key)

    def pods_with_account(self, namespace: str, name: str) -> AbstractSet[ObjectKey]:
        """Pods that run as a ServiceAccount."""
        return self._by_account.get((namespace, name))

    def pods_behind(self, reference: ObjectKey) -> AbstractSet[ObjectKey]:
        """Pods of a Service, of a workload (Deployment, …), or the Pod itself."""
        return self._pods_of.get(reference) or self._by_reference.get(reference)

    def services_of(self, pod: ObjectKey) -> AbstractSet[ObjectKey]:
        """The Services that select a pod."""
        return self._services_of.get(pod)

    def references_to(self, pod: Workload) -> set[ObjectKey]:
        """Every key that `pods_behind` finds this pod under."""
        return {*pod.references, *self._services_of.get(pod.key)}

    def callers_behind(self, reference: ObjectKey) -> set[Caller]:
        """As whom the pods behind a reference call."""
        return {_caller(self._pods[key]) for key in self.pods_behind(reference)}

    def addresses_behind(self, service: Balanced) -> set[Address]:
        """The addresses by which its endpoints, ready or not, are dialled themselves."""
        pods = [self._pods[key] for key in self._pods_of.get(service.key)]
        addresses = {Address(ip, port) for pod in pods for ip in pod.addresses for port in self.ports_of(pod)}
        addresses.update(Address(endpoint.ip, endpoint.target) for endpoint in self.remotes.endpoints(service))
        return addresses

    # What dialling an address means.

    def service_at(self, address: Address) -> Balanced | None:
        """The Service that has this VIP and TCP port; the first by name should several claim it."""
        keys = (key for key in self._by_vip.get(address.ip) if address.port in self._services[key].ports)
        key = min(keys, default=None)
        return None if key is None else self._services[key]

    def pod_at(self, address: Address) -> tuple[Workload, PortUse] | None:
        """The pod that has this address and uses this TCP port."""
        found: list[tuple[Workload, PortUse]] = []
        for key in self._by_address.get(address.ip):
            use = self.ports_of(self._pods[key]).get(address.port)
            if use is not None:
                found.append((self._pods[key], use))
        return max(found, key=lambda entry: _seniority(entry[0]), default=None)

    def pod_with(self, ip: str) -> Workload | None:
        """The pod that has this address."""
        pods = (self._pods[key] for key in self._by_address.get(ip))
        return max(pods, key=_seniority, default=None)

    def ports_of(self, pod: Workload) -> dict[int, PortUse]:
        """The TCP ports of a pod: those it declares and those that Services target."""
        targeted: dict[int, list[tuple[Balanced, Port]]] = {}
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

    def endpoints_of(self, service: Balanced, port: int) -> set[EndpointAddress]:
        """The endpoints of one port of a Service."""
        if service.remote:
            return set(self.remotes.of(ServicePort(service.key, port)))
        return {
            endpoint
            for key in self._pods_of.get(service.key)
            for endpoint in self._endpoints(service, self._pods[key])
            if endpoint.port == port
        }

    def pod_of(self, endpoint: EndpointAddress) -> Workload | None:
        """The pod that is this endpoint, None when there is none.

        A new pod can be seen with an address before its former owner is seen to go: the younger one has it.
        """
        service = self._services.get(endpoint.service)
        if service is None:
            return None
        pods = (self._pods[key] for key in self._by_address.get(endpoint.ip) & self._pods_of.get(service.key))
        return max((pod for pod in pods if endpoint in self._endpoints(service, pod)), key=_seniority, default=None)

    # Events.

    def set_pod(self, key: ObjectKey, pod: Pod | None) -> Changes:
        """The pod has come, changed or (None) gone."""
        old, new = self._pods.get(key), None if pod is None else workload(pod)
        if old == new:
            return Changes()
        before = self._facts(key)
        if old is not None:
            self._unlink_pod(old)
        if new is not None:
            self._link_pod(new)
        return Changes.of((Changes(objects=frozenset((key,))), _difference(before, self._facts(key))))

    def set_service(self, key: ObjectKey, service: Service | None) -> Changes:
        """The Service has come, changed or (None) gone."""
        old, new = self._services.get(key), None if service is None else balanced(service)
        if old == new:
            return Changes()
        itself = _service_difference(old, new)
        if old is not None and new is not None and replace(old, annotations=new.annotations) == new:
            self._services[key] = new
            return Changes.of((itself, _remote_changes(self.remotes.endpoints(new))))
        members = self._pods_of.get(key) | (self._selected(new) if new is not None else set())
        before = {member: self._facts(member) for member in members}
        remote: set[EndpointAddress] = set()
        if old is not None:
            remote |= self.remotes.endpoints(old)
            self._unlink_service(old)
        if new is not None:
            self._link_service(new)
            remote |= self.remotes.endpoints(new)
        differences = (_difference(before[member], self._facts(member)) for member in members)
        return Changes.of((itself, _remote_changes(remote), *differences))

    def set_slice(self, key: ObjectKey, slice_: EndpointSlice | None) -> Changes:
        """The EndpointSlice has come, changed or (None) gone."""
        new = None if slice_ is None else endpoint_slice(slice_)
        return _remote_changes(self.remotes.set_slice(key, new, self._remote_service))

    def _link_pod(self, pod: Workload) -> None:
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

    def _unlink_pod(self, pod: Workload) -> None:
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

    def _link_service(self, service: Balanced) -> None:
        self._services[service.key] = service
        for vip in service.vips:
            self._by_vip.add(vip, service.key)
        if service.remote:
            self.remotes.link(service)
            return
        self._by_selector.add(_indexed(service), service.key)
        for pod in self._selected(service):
            self._pods_of.add(service.key, pod)
            self._services_of.add(pod, service.key)

    def _unlink_service(self, service: Balanced) -> None:
        for pod in tuple(self._pods_of.get(service.key)):
            self._pods_of.discard(service.key, pod)
            self._services_of.discard(pod, service.key)
        if service.remote:
            self.remotes.unlink(service)
        else:
            self._by_selector.discard(_indexed(service), service.key)
        for vip in service.vips:
            self._by_vip.discard(vip, service.key)
        del self._services[service.key]

    def _remote_service(self, key: ObjectKey) -> Balanced | None:
        service = self._services.get(key)
        return service if service is not None and service.remote else None

    def _selected(self, service: Balanced) -> set[ObjectKey]:
        if service.remote:
            return set()
        namespace = service.key.namespace
        candidates = (self._by_label.get((namespace, name, value)) for name, value in service.selector.items())
        return {key for key in min(candidates, key=len) if service.selects(self._pods[key].labels)}

    def _services_selecting(self, pod: ObjectKey) -> list[Balanced]:
        return [self._services[key] for key in self._services_of.get(pod)]

    def _endpoints(self, service: Balanced, pod: Workload) -> Iterator[EndpointAddress]:
        ip = service.address_of(pod)
        if ip is None or not (pod.serving or service.publish_not_ready):
            return
        for port in service.ports.values():
            target = service.target_of(port, pod)
            if target is not None:
                yield EndpointAddress(service.key, port.number, ip, target)

    def _facts(self, key: ObjectKey) -> _Facts:
        pod = self._pods.get(key)
        if pod is None:
            return _Facts()
        services = self._services_selecting(key)
        return _Facts(
            pod=pod,
            services=frozenset(service.key for service in services),
            ports=self.ports_of(pod),
            endpoints={endpoint for service in services for endpoint in self._endpoints(service, pod)},
        )


def _labels(pod: Workload) -> Iterator[_Label]:
    return ((pod.key.namespace, name, value) for name, value in pod.labels.items())


def _indexed(service: Balanced) -> _Label:
    """The one label of its selector under which a Service is found: the last by name is as good as any."""
    name = max(service.selector)
    return service.key.namespace, name, service.selector[name]


def _seniority(pod: Workload) -> tuple[str, ObjectKey]:
    return pod.created, pod.key


def _difference(before: _Facts, after: _Facts) -> Changes:
    """What a pod's change touches."""
    peers_see_another = _as_peer(before.pod) != _as_peer(after.pod)
    endpoints = before.endpoints | after.endpoints if peers_see_another else before.endpoints ^ after.endpoints
    pod = after.pod or before.pod
    own = _but_serving(before.pod) != _but_serving(after.pod) or (before.services, before.ports) != (
        after.services,
        after.ports,
    )
    return Changes(
        pods=frozenset((pod.key,)) if own and pod is not None else frozenset(),
        addresses=frozenset(_touched_addresses(before, after, everything=peers_see_another)),
        endpoints=frozenset(endpoints),
        references=frozenset(reference for reference, _ in _memberships(before) ^ _memberships(after)),
    )


def _memberships(facts: _Facts) -> set[tuple[ObjectKey, Caller]]:
    if facts.pod is None:
        return set()
    return {(reference, _caller(facts.pod)) for reference in {*facts.pod.references, *facts.services}}


def _caller(pod: Workload) -> Caller:
    return Caller((pod.key.namespace, pod.account), pod.addresses)


def _but_serving(pod: Workload | None) -> Workload | None:
    return None if pod is None else replace(pod, serving=False)


def _as_peer(pod: Workload | None) -> object:
    """What other pods' sidecars act on, apart from addresses and ports."""
    return None if pod is None else (pod.created, pod.meshed, pod.account, pod.annotations, pod.metric_labels)


def _touched_addresses(before: _Facts, after: _Facts, *, everything: bool) -> Iterable[Address]:
    old, new = _meanings(before), _meanings(after)
    return (address for address in old.keys() | new.keys() if everything or old.get(address) != new.get(address))


def _meanings(facts: _Facts) -> dict[Address, PortUse]:
    if facts.pod is None:
        return {}
    return {Address(ip, port): use for ip in facts.pod.addresses for port, use in facts.ports.items()}


def _service_difference(old: Balanced | None, new: Balanced | None) -> Changes:
    """What a Service's change touches, apart from the pods it selects."""
    before, after = _reach(old), _reach(new)
    annotated = old is not None and new is not None and old.annotations != new.annotations
    return Changes(
        objects=frozenset(service.key for service in (old, new) if service is not None),
        addresses=frozenset(
            address for address in before.keys() | after.keys() if before.get(address) != after.get(address)
        ),
        services=frozenset(
            {ServicePort(service.key, port) for service in (old, new) if service is not None for port in service.ports}
            if annotated or old is None or new is None or bool(old.vips) != bool(new.vips)
            else {ServicePort(new.key, port) for port in old.ports.keys() ^ new.ports.keys()}
        ),
    )


def _remote_changes(endpoints: AbstractSet[EndpointAddress]) -> Changes:
    """What endpoints that are no pods of ours touch."""
    return Changes(
        endpoints=frozenset(endpoints), addresses=frozenset(Address(each.ip, each.target) for each in endpoints)
    )


def _reach(service: Balanced | None) -> dict[Address, PortProtocol]:
    if service is None:
        return {}
    return {Address(vip, port.number): port.protocol for vip in service.vips for port in service.ports.values()}
