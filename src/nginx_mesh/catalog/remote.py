"""Endpoints that EndpointSlices list for Services whose annotation names the SPIFFE ID that they prove.

Slices and Services come in any order. An event costs in proportion to its slice, or to its Service's slices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

from nginx_mesh.api.meta import ObjectKey

from .addresses import family
from .changes import Address, EndpointAddress, ServicePort
from .multimap import MultiMap
from .records import Balanced, Slice


class Remotes:
    """Slices, and the endpoints that they are of the remote Services there are."""

    def __init__(self) -> None:
        self._slices: dict[ObjectKey, Slice] = {}
        self._slices_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        # How many slices list an endpoint: Kubernetes may move one from slice to slice.
        self._listed: Counter[EndpointAddress] = Counter()
        self._of_port: MultiMap[ServicePort, EndpointAddress] = MultiMap()
        self._at: MultiMap[Address, EndpointAddress] = MultiMap()

    def __contains__(self, endpoint: EndpointAddress) -> bool:
        return endpoint in self._listed

    def of(self, port: ServicePort) -> AbstractSet[EndpointAddress]:
        """The endpoints of a port of a Service."""
        return self._of_port.get(port)

    def at(self, address: Address) -> EndpointAddress | None:
        """An endpoint that has this address; the first by Service and port should several."""
        return min(self._at.get(address), default=None)

    def addresses(self) -> Iterator[Address]:
        """Every address that an endpoint has."""
        return iter(self._at)

    def set_slice(
        self, key: ObjectKey, new: Slice | None, service_of: Callable[[ObjectKey], Balanced | None]
    ) -> set[EndpointAddress]:
        """The slice has come, changed or (None) gone: the endpoints that came or went with it.

        `service_of` gives the remote Service of a key, if there is one.
        """
        old = self._slices.get(key)
        if old == new:
            return set()
        touched: set[EndpointAddress] = set()
        if old is not None:
            del self._slices[key]
            self._slices_of.discard(old.service, key)
            service = service_of(old.service)
            touched ^= self._unlist(service, old) if service is not None else set()
        if new is not None:
            self._slices[key] = new
            self._slices_of.add(new.service, key)
            service = service_of(new.service)
            touched ^= self._list(service, new) if service is not None else set()
        return touched

    def link(self, service: Balanced) -> None:
        """A remote Service has come."""
        for key in self._slices_of.get(service.key):
            self._list(service, self._slices[key])

    def unlink(self, service: Balanced) -> None:
        """A remote Service has gone."""
        for key in self._slices_of.get(service.key):
            self._unlist(service, self._slices[key])

    def endpoints(self, service: Balanced) -> set[EndpointAddress]:
        """All endpoints of a Service, none when it is not remote."""
        return {endpoint for port in service.ports for endpoint in self.of(ServicePort(service.key, port))}

    def _list(self, service: Balanced, slice_: Slice) -> set[EndpointAddress]:
        """What is an endpoint only now."""
        new = set()
        for endpoint in _endpoints(service, slice_):
            self._listed[endpoint] += 1
            if self._listed[endpoint] == 1:
                new.add(endpoint)
                self._of_port.add(endpoint.service_port, endpoint)
                self._at.add(Address(endpoint.ip, endpoint.target), endpoint)
        return new

    def _unlist(self, service: Balanced, slice_: Slice) -> set[EndpointAddress]:
        """What is no endpoint any more."""
        gone = set()
        for endpoint in _endpoints(service, slice_):
            self._listed[endpoint] -= 1
            if not self._listed[endpoint]:
                gone.add(endpoint)
                del self._listed[endpoint]
                self._of_port.discard(endpoint.service_port, endpoint)
                self._at.discard(Address(endpoint.ip, endpoint.target), endpoint)
        return gone


def _endpoints(service: Balanced, slice_: Slice) -> Iterator[EndpointAddress]:
    families = {family(vip) for vip in service.vips} or {4, 6}
    for port in service.ports.values():
        target = slice_.ports.get(port.name)
        if target is not None:
            for ip, ready in slice_.addresses.items():
                if family(ip) in families and (ready or service.publish_not_ready):
                    yield EndpointAddress(service.key, port.number, ip, target)
