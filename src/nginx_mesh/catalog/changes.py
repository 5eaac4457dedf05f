"""Events that feed the catalog, and what it says they touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple

from nginx_mesh.api.meta import Object, ObjectKey


@dataclass(frozen=True, slots=True)
class Upsert:
    """The object is new, or has changed to this."""

    obj: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """The object is gone."""

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
    """An address and port (`ip`, `target`), a pod's as a rule, behind a port of a Service."""

    service: ObjectKey
    port: int
    ip: str
    target: int

    @property
    def service_port(self) -> ServicePort:
        """The port of the Service that it stands behind."""
        return ServicePort(self.service, self.port)


@dataclass(frozen=True, slots=True)
class Changes:
    """The facts that events touched. Each may have come, gone or changed: the catalog tells which.

    `pods`: facts of a pod that its own sidecar acts on. `addresses`: what dialling an address means.
    `services`: ports of a Service with everything behind them. `endpoints`: single endpoints.
    `references`: Services, workloads and pods, as policies name them, whose members, or their accounts or addresses,
    changed.
    `splits`, `breakers`: ports of a Service at which a split or a breaker may be another.
    `objects`: objects whose soundness is to be looked at again, for themselves or for what they refer to.
    """

    pods: frozenset[ObjectKey] = frozenset()
    addresses: frozenset[Address] = frozenset()
    services: frozenset[ServicePort] = frozenset()
    endpoints: frozenset[EndpointAddress] = frozenset()
    references: frozenset[ObjectKey] = frozenset()
    splits: frozenset[ServicePort] = frozenset()
    breakers: frozenset[ServicePort] = frozenset()
    objects: frozenset[ObjectKey] = frozenset()

    @classmethod
    def of(cls, parts: Iterable[Changes]) -> Changes:
        """All that several changes touched."""
        parts = tuple(parts)
        return cls(
            pods=frozenset().union(*(part.pods for part in parts)),
            addresses=frozenset().union(*(part.addresses for part in parts)),
            services=frozenset().union(*(part.services for part in parts)),
            endpoints=frozenset().union(*(part.endpoints for part in parts)),
            references=frozenset().union(*(part.references for part in parts)),
            splits=frozenset().union(*(part.splits for part in parts)),
            breakers=frozenset().union(*(part.breakers for part in parts)),
            objects=frozenset().union(*(part.objects for part in parts)),
        )

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))
