"""Who may call a port: TrafficTargets as grants.

An HTTPRouteGroup grants HTTP and gRPC, a TCPRoute grants TCP; a TrafficTarget without rules grants both. A rule that
cannot be resolved grants nothing. Where Services disagree about a port's protocol, each rule grants its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nginx_mesh.api.portprotocol import PortProtocol
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.smi import TrafficTarget
from nginx_mesh.api.spiffe import account_id
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.records import Workload
from nginx_mesh.protocol.state import Grant

from .routes import resolve


def grants(
    catalog: Catalog, settings: MeshSettings, pod: Workload, port: int, protocols: Sequence[PortProtocol]
) -> list[Grant] | None:
    """What TrafficTargets grant at a port of a pod, the oldest first; None when everything is allowed.

    A TrafficTarget with a port says nothing about the others: in allow mode those stay open.
    """
    targets = [
        target
        for target in catalog.policies.targets_of((pod.key.namespace, pod.account))
        if target.spec.destination.port in (None, port)
    ]
    if not targets and settings.access_control_mode == "allow":
        return None
    return [grant for target in targets for grant in _grants(catalog, settings, target, protocols)]


def _grants(
    catalog: Catalog, settings: MeshSettings, target: TrafficTarget, protocols: Sequence[PortProtocol]
) -> Iterator[Grant]:
    namespace = target.metadata.namespace
    sources = {
        account_id(settings.trust_domain, source.namespace or namespace, source.name) for source in target.spec.sources
    }
    sources.discard(None)
    name, callers = f"{namespace}/{target.metadata.name}", sorted(filter(None, sources))
    if not callers:
        return
    if not target.spec.rules:
        yield Grant(target=name, sources=callers)
        return
    routes = resolve(catalog.policies, namespace, target.spec.rules)
    if routes.http and set(protocols) != {"tcp"}:
        yield Grant(target=name, sources=callers, matches=routes.http)
    if routes.tcp and "tcp" in protocols:
        yield Grant(target=name, sources=callers, tcp=True)
