"""Rules for TrafficSplits, RateLimits and CircuitBreakers."""

from __future__ import annotations

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.services import Service
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.catalog.policies import limited_destination, limited_sources
from nginx_mesh.catalog.routing import breaker_services, split_services

from . import rules
from .describedmesh import DescribedMesh
from .rules import Findings


def traffic_splits(mesh: DescribedMesh) -> Findings:
    """Findings about TrafficSplits."""
    for split in mesh.of_kind(TrafficSplit):
        key, spec, root = split.key, split.spec, split_services(split).root
        effective = mesh.catalog.policies.splits.effective(root)
        if effective is not None and effective.key != key:
            yield rules.TWO_SPLITS.at(key, "spec.service", f"{effective.key} splits {root} as well, and applies")
        if not any(backend.weight for backend in spec.backends):
            yield rules.NO_WEIGHT.at(key, "spec.backends", f"the weights sum to 0: all requests go to {root}")
        for index, backend in enumerate(spec.backends):
            where = f"spec.backends[{index}].service"
            service = ObjectKey(Service.KIND, split.metadata.namespace, backend.service)
            nested = None if service == root else mesh.catalog.policies.splits.effective(service)
            if nested is not None:
                yield rules.NESTED_SPLIT.at(key, where, f"{backend.service} is the root of {nested.key}")
            if backend.weight and mesh.has_pods and _selects_nothing(mesh, service):
                yield rules.EMPTY_BACKEND.at(key, where, f"{backend.service} selects no pod in these manifests")


def rate_limits(mesh: DescribedMesh) -> Findings:
    """Findings about RateLimits."""
    for limit in mesh.of_kind(RateLimit):
        if limit.spec.burst == 0:
            message = f"of two requests within an interval of {limit.spec.rate} the second is refused"
            yield rules.NO_BURST.at(limit.key, "spec.burst", message)
        if mesh.has_pods:
            yield from _selected_pods(mesh, limit)


def _selected_pods(mesh: DescribedMesh, limit: RateLimit) -> Findings:
    destination = limited_destination(limit)
    pods = mesh.pods_behind(destination)
    if not pods:
        message = f"there is no pod of {destination} in these manifests"
        yield rules.LIMIT_SELECTS_NOTHING.at(limit.key, "spec.destination", message)
    else:
        bare = mesh.without_sidecar(pods)
        if bare:
            message = f"{', '.join(bare)} has no sidecar: nothing is limited there"
            yield rules.NO_SIDECAR.at(limit.key, "spec.destination", message)
        if mesh.protocols(pods) == {"tcp"}:
            yield rules.LIMIT_OF_TCP.at(limit.key, "spec.destination", f"{destination} speaks TCP only")
    for index, source in enumerate(limited_sources(limit)):
        if not mesh.pods_behind(source):
            message = f"there is no pod of {source} in these manifests"
            yield rules.LIMIT_WITHOUT_SOURCE.at(limit.key, f"spec.sources[{index}]", message)


def circuit_breakers(mesh: DescribedMesh) -> Findings:
    """Findings about CircuitBreakers."""
    for breaker in mesh.of_kind(CircuitBreaker):
        key, destination = breaker.key, breaker_services(breaker).root
        effective = mesh.catalog.policies.breakers.effective(destination)
        if effective is not None and effective.key != key:
            message = f"{effective.key} breaks circuits to {destination} as well, and applies"
            yield rules.TWO_BREAKERS.at(key, "spec.destination", message)
        pods = mesh.pods_behind(destination)
        if breaker.spec.fallback is None and mesh.replicas(pods) == 1:
            yield rules.NO_FALLBACK.at(key, "spec.fallback", f"{destination} has one pod, and there is no fallback")


def _selects_nothing(mesh: DescribedMesh, service: ObjectKey) -> bool:
    """Whether a Service that the manifests contain has a selector that selects no pod."""
    found = mesh.catalog.topology.service(service)
    return found is not None and not found.remote and not mesh.pods_behind(service)
