"""Access control: compiles TrafficTargets to the grants of a port.

An HTTPRouteGroup grants HTTP and gRPC, a TCPRoute grants TCP; a TrafficTarget without rules grants both. A rule that
cannot be resolved grants nothing. Where Services disagree about a port's protocol, each rule grants its own protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nginx_mesh.api.portprotocol import PortProtocol
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.api.smi import TrafficTarget
from nginx_mesh.api.spiffe import account_id
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.catalog.references import referenced_key
from nginx_mesh.protocol.state import Grant

from .routes import resolve


def grants(
    catalog: Catalog, settings: MeshSettings, pod: PodRecord, port: int, protocols: Sequence[PortProtocol]
) -> list[Grant] | None:
    """The grants of TrafficTargets at a port of a pod, the oldest first; None when everybody may call.

    A TrafficTarget with a port does not apply to other ports: in allow mode those stay open.
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
    sources = {referenced_key(target, source) for source in target.spec.sources}
    ids = {account_id(settings.trust_domain, source.namespace, source.name) for source in sources}
    name, callers = target.key.namespaced_name, sorted(filter(None, ids))
    if not callers:
        return
    if not target.spec.rules:
        yield Grant(target=name, sources=callers)
        return
    routes = resolve(catalog.policies, target.metadata.namespace, target.spec.rules)
    if routes.http and set(protocols) != {"tcp"}:
        yield Grant(target=name, sources=callers, matches=routes.http)
    if routes.tcp and "tcp" in protocols:
        yield Grant(target=name, sources=callers, tcp=True)
