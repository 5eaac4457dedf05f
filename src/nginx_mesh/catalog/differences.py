"""The changes that updates of pods, Services and remote endpoints make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.portprotocol import PortProtocol

from .changes import Address, Changes, EndpointAddress, ServicePort
from .records import Caller, PodRecord, PortUse, ServiceRecord


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Everything in the catalog that depends on one pod."""

    pod: PodRecord | None = None
    services: AbstractSet[ObjectKey] = frozenset()
    ports: Mapping[int, PortUse] = field(default_factory=dict)
    endpoints: AbstractSet[EndpointAddress] = frozenset()


def pod_changes(before: PodFacts, after: PodFacts) -> Changes:
    """The changes that an update of a pod makes."""
    differs_to_callers = _as_seen_by_callers(before.pod) != _as_seen_by_callers(after.pod)
    endpoints = before.endpoints | after.endpoints if differs_to_callers else before.endpoints ^ after.endpoints
    pod = after.pod or before.pod
    own_before = _without_readiness(before.pod), before.services, before.ports
    own_after = _without_readiness(after.pod), after.services, after.ports
    return Changes(
        pods=frozenset((pod.key,)) if pod is not None and own_before != own_after else frozenset(),
        addresses=frozenset(_changed_addresses(before, after, every=differs_to_callers)),
        endpoints=frozenset(endpoints),
        references=frozenset(reference for reference, _ in _memberships(before) ^ _memberships(after)),
    )


def _memberships(facts: PodFacts) -> set[tuple[ObjectKey, Caller]]:
    if facts.pod is None:
        return set()
    return {(reference, facts.pod.caller) for reference in {*facts.pod.references, *facts.services}}


def _without_readiness(pod: PodRecord | None) -> PodRecord | None:
    return None if pod is None else replace(pod, ready=False)


def _as_seen_by_callers(pod: PodRecord | None) -> object:
    """What the sidecars of other pods act on, apart from addresses and ports."""
    return None if pod is None else (pod.created, pod.meshed, pod.account, pod.annotations, pod.metric_labels)


def _changed_addresses(before: PodFacts, after: PodFacts, *, every: bool) -> Iterable[Address]:
    old, new = _uses_by_address(before), _uses_by_address(after)
    return (address for address in old.keys() | new.keys() if every or old.get(address) != new.get(address))


def _uses_by_address(facts: PodFacts) -> dict[Address, PortUse]:
    if facts.pod is None:
        return {}
    return {Address(ip, port): use for ip in facts.pod.addresses for port, use in facts.ports.items()}


def service_changes(old: ServiceRecord | None, new: ServiceRecord | None) -> Changes:
    """The changes that an update of a Service makes, apart from those of its endpoints."""
    before, after = _protocols_by_address(old), _protocols_by_address(new)
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


def remote_endpoint_changes(endpoints: AbstractSet[EndpointAddress]) -> Changes:
    """The changes of remote endpoints that were added or removed."""
    return Changes(endpoints=frozenset(endpoints), addresses=frozenset(each.address for each in endpoints))


def _protocols_by_address(service: ServiceRecord | None) -> dict[Address, PortProtocol]:
    if service is None:
        return {}
    return {Address(vip, port.number): port.protocol for vip in service.vips for port in service.ports.values()}
