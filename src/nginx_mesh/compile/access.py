"""Who may call a port: TrafficTargets as grants.

An HTTPRouteGroup grants HTTP and gRPC, a TCPRoute grants TCP; a TrafficTarget without rules grants both. A rule that
cannot be resolved grants nothing. Where Services disagree about a port's protocol, only HTTP can be granted by rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.smi import TrafficTarget
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.protocol import Protocol
from nginx_mesh.catalog.records import Workload

from .identities import account_id
from .routes import resolve
from .state import Grant


def grants(
    catalog: Catalog, settings: MeshSettings, pod: Workload, port: int, protocols: Sequence[Protocol]
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
    granted = (_grant(catalog, settings, target, protocols) for target in targets)
    return [grant for grant in granted if grant is not None]


def _grant(
    catalog: Catalog, settings: MeshSettings, target: TrafficTarget, protocols: Sequence[Protocol]
) -> Grant | None:
    namespace = target.metadata.namespace
    sources = {
        account_id(settings.trust_domain, source.namespace or namespace, source.name) for source in target.spec.sources
    }
    sources.discard(None)
    name, callers = f"{namespace}/{target.metadata.name}", sorted(filter(None, sources))
    if not callers:
        return None
    if not target.spec.rules:
        return Grant(target=name, sources=callers)
    routes = resolve(catalog.policies, namespace, target.spec.rules)
    if list(protocols) == ["tcp"]:
        return Grant(target=name, sources=callers) if routes.tcp else None
    return Grant(target=name, sources=callers, matches=routes.http) if routes.http else None
