"""Compiles RateLimits to the limits of a pod's HTTP and gRPC ports.

Each pod of the destination allows the whole rate, divided evenly among the policy's sources. When several policies name
the same destination and source, the oldest one applies.
"""

from __future__ import annotations

from collections.abc import Iterator

from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.nsm import RateLimit
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.spiffe import account_id
from nginx_mesh.api.values import parse_delay, parse_rate
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.policies import limited_destination, limited_sources
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.protocol.state import Limit, PathRule

from .routes import resolve

# No caller sends more at once, and sidecars cannot count higher.
_MAX_REQUESTS = (1 << 31) - 1
_LimitedPair = tuple[ObjectKey, ObjectKey | None]


def limits(catalog: Catalog, settings: MeshSettings, pod: PodRecord) -> list[Limit]:
    """The limits of a pod, those of the oldest policy first.

    A policy with an invalid value limits nothing, nor does one with rules of which none can be resolved.
    """
    limited: set[_LimitedPair] = set()
    found: list[Limit] = []
    for policy in catalog.policies.limits_of(catalog.topology.references_to(pod)):
        found.extend(_limits(catalog, settings, policy, limited))
        limited |= limited_pairs(policy)
    return found


def limited_pairs(policy: RateLimit) -> set[_LimitedPair]:
    """The pairs of destination and source that a policy limits; the source None stands for all other callers."""
    destination = limited_destination(policy)
    return {(destination, source) for source in limited_sources(policy)} or {(destination, None)}


def _limits(catalog: Catalog, settings: MeshSettings, policy: RateLimit, limited: set[_LimitedPair]) -> Iterator[Limit]:
    spec = policy.spec
    try:
        rate, delay = parse_rate(spec.rate), min(parse_delay(spec.delay), _MAX_REQUESTS)
    except FieldError:
        return
    burst = min(max(spec.burst, 0), _MAX_REQUESTS)
    matches: list[PathRule] = []
    if spec.rules:
        matches = resolve(catalog.policies, policy.metadata.namespace, spec.rules).http
        if not matches:
            return
    name, destination, sources = policy.key.namespaced_name, limited_destination(policy), limited_sources(policy)
    if not sources and (destination, None) not in limited:
        yield Limit(name=name, rate=rate, burst=burst, delay=delay, matches=matches)
    for source in sources:
        # A caller proves its account, not its workload. Its address tells apart the workloads of one account.
        callers = catalog.topology.callers_behind(source)
        ids = {account_id(settings.trust_domain, *caller.account) for caller in callers}
        known = sorted(id_ for id_ in ids if id_ is not None)
        if known and (destination, source) not in limited:
            yield Limit(
                name=f"{name}/{source.kind}/{source.namespaced_name}",
                rate=max(1, rate // len(sources)),
                burst=burst,
                delay=delay,
                sources=known,
                addresses=sorted({address for caller in callers for address in caller.addresses}),
                matches=matches,
            )
