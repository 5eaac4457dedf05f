"""The endpoints of remote Services: those without a selector, whose annotation names the SPIFFE ID of the endpoints.

EndpointSlices list them. Slices and Services may arrive in any order. The cost of an event is in proportion to the size
of its slice, or of its Service's slices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

from nginx_mesh.api.meta import ObjectKey

from .addresses import family
from .changes import Address, EndpointAddress, ServicePort
from .multimap import MultiMap
from .records import ServiceRecord, SliceRecord


class RemoteEndpoints:
    """EndpointSlices, and the endpoints that they list for the remote Services in the catalog."""

    def __init__(self) -> None:
        self._slices: dict[ObjectKey, SliceRecord] = {}
        self._slices_of: MultiMap[ObjectKey, ObjectKey] = MultiMap()
        # How many slices list an endpoint. More than one may do so while Kubernetes moves it to another slice.
        self._listed: Counter[EndpointAddress] = Counter()
        self._of_port: MultiMap[ServicePort, EndpointAddress] = MultiMap()
        self._at: MultiMap[Address, EndpointAddress] = MultiMap()

    def __contains__(self, endpoint: EndpointAddress) -> bool:
        return endpoint in self._listed

    def of_port(self, port: ServicePort) -> AbstractSet[EndpointAddress]:
        """The endpoints of a Service's port."""
        return self._of_port.get(port)

    def at(self, address: Address) -> EndpointAddress | None:
        """The endpoint at this address; when there are several, the first by Service and port."""
        return min(self._at.get(address), default=None)

    def addresses(self) -> Iterator[Address]:
        """The addresses of all endpoints."""
        return iter(self._at)

    def set_slice(
        self, key: ObjectKey, new: SliceRecord | None, service_of: Callable[[ObjectKey], ServiceRecord | None]
    ) -> set[EndpointAddress]:
        """Store a new or updated slice; None deletes it. Returns the endpoints that this added or removed.

        `service_of` returns the remote Service of a key, if the catalog has one.
        """
        old = self._slices.get(key)
        if old == new:
            return set()
        changed: set[EndpointAddress] = set()
        if old is not None:
            del self._slices[key]
            self._slices_of.discard(old.service, key)
            service = service_of(old.service)
            changed ^= self._unlist(service, old) if service is not None else set()
        if new is not None:
            self._slices[key] = new
            self._slices_of.add(new.service, key)
            service = service_of(new.service)
            changed ^= self._list(service, new) if service is not None else set()
        return changed

    def add_service(self, service: ServiceRecord) -> None:
        """Add the endpoints of a new remote Service."""
        for key in self._slices_of.get(service.key):
            self._list(service, self._slices[key])

    def remove_service(self, service: ServiceRecord) -> None:
        """Remove the endpoints of a remote Service that was deleted."""
        for key in self._slices_of.get(service.key):
            self._unlist(service, self._slices[key])

    def of_service(self, service: ServiceRecord) -> set[EndpointAddress]:
        """All endpoints of a Service; none when it is not remote."""
        return {endpoint for port in service.ports for endpoint in self.of_port(ServicePort(service.key, port))}

    def _list(self, service: ServiceRecord, slice_: SliceRecord) -> set[EndpointAddress]:
        """Count the slice's endpoints. Returns those that no other slice lists."""
        new = set()
        for endpoint in _endpoints(service, slice_):
            self._listed[endpoint] += 1
            if self._listed[endpoint] == 1:
                new.add(endpoint)
                self._of_port.add(endpoint.service_port, endpoint)
                self._at.add(endpoint.address, endpoint)
        return new

    def _unlist(self, service: ServiceRecord, slice_: SliceRecord) -> set[EndpointAddress]:
        """Take the slice's endpoints from the count. Returns those that no other slice lists."""
        gone = set()
        for endpoint in _endpoints(service, slice_):
            self._listed[endpoint] -= 1
            if not self._listed[endpoint]:
                gone.add(endpoint)
                del self._listed[endpoint]
                self._of_port.discard(endpoint.service_port, endpoint)
                self._at.discard(endpoint.address, endpoint)
        return gone


def _endpoints(service: ServiceRecord, slice_: SliceRecord) -> Iterator[EndpointAddress]:
    families = {family(vip) for vip in service.vips} or {4, 6}
    for port in service.ports.values():
        target = slice_.ports.get(port.name)
        if target is not None:
            for ip, ready in slice_.addresses.items():
                if family(ip) in families and (ready or service.publish_not_ready):
                    yield EndpointAddress(service.key, port.number, ip, target)
