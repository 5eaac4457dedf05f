"""TrafficSplits, RateLimits and CircuitBreakers: what they apply to, and what that makes of them."""

from __future__ import annotations

from nginx_mesh.api.core import Service
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import CircuitBreaker, RateLimit
from nginx_mesh.api.smi import TrafficSplit
from nginx_mesh.catalog.policies import limited_destination, limited_sources
from nginx_mesh.catalog.routing import breaker_ends, split_ends

from . import rules
from .rules import Findings
from .world import World


def splits(world: World) -> Findings:
    """Of TrafficSplits."""
    for split in world.of(TrafficSplit):
        key, spec, root = split.key, split.spec, split_ends(split).start
        counts = world.catalog.policies.splits.at(root)
        if counts is not None and counts.key != key:
            yield rules.TWO_SPLITS.at(key, "spec.service", f"{counts.key} splits {root} as well, and counts")
        if not any(backend.weight for backend in spec.backends):
            yield rules.NO_WEIGHT.at(key, "spec.backends", f"the weights sum to 0: all goes to {root}")
        for index, backend in enumerate(spec.backends):
            where = f"spec.backends[{index}].service"
            service = ObjectKey(Service.KIND, split.metadata.namespace, backend.service)
            nested = None if service == root else world.catalog.policies.splits.at(service)
            if nested is not None:
                yield rules.NESTED_SPLIT.at(key, where, f"{backend.service} is the root of {nested.key}")
            if backend.weight and world.has_pods and _selects_nothing(world, service):
                yield rules.EMPTY_BACKEND.at(key, where, f"{backend.service} selects no pod among these")


def limits(world: World) -> Findings:
    """Of RateLimits."""
    for limit in world.of(RateLimit):
        if limit.spec.burst == 0:
            message = f"of two requests within an interval of {limit.spec.rate} the second is refused"
            yield rules.NO_BURST.at(limit.key, "spec.burst", message)
        if world.has_pods:
            yield from _limited(world, limit)


def _limited(world: World, limit: RateLimit) -> Findings:
    destination = limited_destination(limit)
    pods = world.pods_behind(destination)
    if not pods:
        message = f"there is no pod of {destination} among these"
        yield rules.LIMIT_SELECTS_NOTHING.at(limit.key, "spec.destination", message)
    else:
        bare = world.without_sidecar(pods)
        if bare:
            message = f"{', '.join(bare)} has no sidecar: nothing is limited there"
            yield rules.NO_SIDECAR.at(limit.key, "spec.destination", message)
        spoken = {
            protocol
            for pod in pods
            for use in world.catalog.topology.ports_of(pod).values()
            if use.declared
            for protocol in use.protocols
        }
        if spoken == {"tcp"}:
            yield rules.LIMIT_OF_TCP.at(limit.key, "spec.destination", f"{destination} speaks TCP only")
    for index, source in enumerate(limited_sources(limit)):
        if not world.pods_behind(source):
            message = f"there is no pod of {source} among these"
            yield rules.LIMITED_NOBODY.at(limit.key, f"spec.sources[{index}]", message)


def breakers(world: World) -> Findings:
    """Of CircuitBreakers."""
    for breaker in world.of(CircuitBreaker):
        key, destination = breaker.key, breaker_ends(breaker).start
        counts = world.catalog.policies.breakers.at(destination)
        if counts is not None and counts.key != key:
            message = f"{counts.key} breaks circuits to {destination} as well, and counts"
            yield rules.TWO_BREAKERS.at(key, "spec.destination", message)
        pods = world.pods_behind(destination)
        if breaker.spec.fallback is None and world.replicas(pods) == 1:
            yield rules.NO_FALLBACK.at(key, "spec.fallback", f"{destination} has one pod, and there is no fallback")


def _selects_nothing(world: World, service: ObjectKey) -> bool:
    """Whether a Service that is given, and whose pods a selector says, has none."""
    found = world.catalog.topology.service(service)
    return found is not None and not found.remote and not world.pods_behind(service)
