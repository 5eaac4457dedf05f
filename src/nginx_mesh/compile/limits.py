"""RateLimits as limits of a pod's HTTP and gRPC ports.

Each pod of the destination grants the whole rate, divided evenly among the policy's sources. Of several policies that
name the same destination and source, the oldest counts.
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
from nginx_mesh.catalog.records import Workload
from nginx_mesh.protocol.state import Limit, PathRule

from .routes import resolve

# Nobody sends more at once; sidecars count no further.
_MOST = (1 << 31) - 1
_Claim = tuple[ObjectKey, ObjectKey | None]


def limits(catalog: Catalog, settings: MeshSettings, pod: Workload) -> list[Limit]:
    """The limits of a pod, the oldest policy first. A policy with a bad value or with no route left limits nothing."""
    claimed: set[_Claim] = set()
    found: list[Limit] = []
    for policy in catalog.policies.limits_of(catalog.topology.references_to(pod)):
        found.extend(_limits(catalog, settings, policy, claimed))
        claimed |= claims(policy)
    return found


def claims(policy: RateLimit) -> set[_Claim]:
    """The pairs of destination and source that a policy speaks of; None stands for all other callers."""
    destination = limited_destination(policy)
    return {(destination, source) for source in limited_sources(policy)} or {(destination, None)}


def _limits(catalog: Catalog, settings: MeshSettings, policy: RateLimit, claimed: set[_Claim]) -> Iterator[Limit]:
    spec, namespace = policy.spec, policy.metadata.namespace
    try:
        rate, delay = parse_rate(spec.rate), min(parse_delay(spec.delay), _MOST)
    except FieldError:
        return
    burst = min(max(spec.burst, 0), _MOST)
    matches: list[PathRule] = []
    if spec.rules:
        matches = resolve(catalog.policies, namespace, spec.rules).http
        if not matches:
            return
    name, destination, sources = (
        f"{namespace}/{policy.metadata.name}",
        limited_destination(policy),
        limited_sources(policy),
    )
    if not sources and (destination, None) not in claimed:
        yield Limit(name=name, rate=rate, burst=burst, delay=delay, matches=matches)
    for source in sources:
        # A caller proves its account, not its workload: who has the account is told by the address.
        callers = catalog.topology.callers_behind(source)
        ids = {account_id(settings.trust_domain, *caller.account) for caller in callers}
        known = sorted(id_ for id_ in ids if id_ is not None)
        if known and (destination, source) not in claimed:
            yield Limit(
                name=f"{name}/{source.kind}/{source.namespace}/{source.name}",
                rate=max(1, rate // len(sources)),
                burst=burst,
                delay=delay,
                sources=known,
                addresses=sorted({address for caller in callers for address in caller.addresses}),
                matches=matches,
            )
