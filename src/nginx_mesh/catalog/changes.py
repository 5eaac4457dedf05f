"""The events that update the catalog, and the changes that the catalog reports for them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nginx_mesh.api.meta import Object, ObjectKey

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Upsert:
    """An object was created or updated."""

    obj: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """An object was deleted."""

    key: ObjectKey


Event = Upsert | Delete


class Address(NamedTuple):
    """A TCP address that an application may dial."""

    ip: str
    port: int


class ServicePort(NamedTuple):
    """A TCP port of a Service."""

    service: ObjectKey
    port: int


class EndpointAddress(NamedTuple):
    """An endpoint of a Service's port: an address (`ip`) and the port there (`target`), as a rule those of a pod."""

    service: ObjectKey
    port: int
    ip: str
    target: int

    @property
    def address(self) -> Address:
        """Where the endpoint listens."""
        return Address(self.ip, self.target)

    @property
    def service_port(self) -> ServicePort:
        """The Service's port that this is an endpoint of."""
        return ServicePort(self.service, self.port)


@dataclass(frozen=True, slots=True)
class Changes:
    """What may have been created, updated or deleted by events. The catalog has the present values.

    `pods`: pods whose own sidecars are affected. `addresses`: addresses at which dialling leads to something else.
    `services`: ports of Services, each with all of its endpoints. `endpoints`: single endpoints.
    `references`: Services, workloads and pods that policies can refer to, when their pods, or the accounts or
    addresses of their pods, changed.
    `splits`, `breakers`: ports of Services to which another TrafficSplit or CircuitBreaker may apply.
    `objects`: objects to be checked again, because they or objects that they refer to changed.
    """

    pods: frozenset[ObjectKey] = frozenset()
    addresses: frozenset[Address] = frozenset()
    services: frozenset[ServicePort] = frozenset()
    endpoints: frozenset[EndpointAddress] = frozenset()
    references: frozenset[ObjectKey] = frozenset()
    splits: frozenset[ServicePort] = frozenset()
    breakers: frozenset[ServicePort] = frozenset()
    objects: frozenset[ObjectKey] = frozenset()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


def union(first: D, *others: D) -> D:
    """A dataclass whose fields are the unions of the fields of all given ones. All fields must be frozensets."""
    merged: dict[str, frozenset[Any]] = {
        field.name: getattr(first, field.name).union(*(getattr(other, field.name) for other in others))
        for field in fields(first)
    }
    return type(first)(**merged)
