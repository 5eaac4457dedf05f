"""Rules for TrafficTargets: the pods that they protect, and the callers that they allow."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.smi import HTTPRouteGroup, TCPRoute, TrafficTarget
from nginx_mesh.catalog.policies import destination_account
from nginx_mesh.catalog.records import PodRecord

from .describedmesh import DescribedMesh
from .rules import (
    NO_SIDECAR,
    NO_SOURCES,
    NO_SUCH_PORT,
    SOURCE_SELECTS_NOTHING,
    TARGET_SELECTS_NOTHING,
    WRONG_PROTOCOL,
    Findings,
)


def traffic_targets(mesh: DescribedMesh) -> Findings:
    """Findings about TrafficTargets."""
    for target in mesh.of_kind(TrafficTarget):
        if not target.spec.sources:
            yield NO_SOURCES.at(target.key, "spec.sources", "is empty: nobody is granted anything")
        if mesh.has_pods:
            yield from _destination(mesh, target)
            yield from _sources(mesh, target)


def _destination(mesh: DescribedMesh, target: TrafficTarget) -> Findings:
    namespace, account = destination_account(target)
    pods = mesh.pods_of_account(namespace, account)
    if not pods:
        message = f"no pod in these manifests runs as service account {namespace}/{account}"
        yield TARGET_SELECTS_NOTHING.at(target.key, "spec.destination", message)
        return
    bare = mesh.without_sidecar(pods)
    if bare:
        message = f"{', '.join(bare)} has no sidecar: nothing is enforced there"
        yield NO_SIDECAR.at(target.key, "spec.destination", message)
    port = target.spec.destination.port
    if port is not None and not any(port in pod.ports for pod in pods):
        declared = sorted({number for pod in pods for number in pod.ports})
        message = f"{port} is no port of {', '.join(pod.key.name for pod in pods)}; declared are {_listed(declared)}"
        yield NO_SUCH_PORT.at(target.key, "spec.destination.port", message)
        return
    yield from _protocol(mesh, target, pods)


def _protocol(mesh: DescribedMesh, target: TrafficTarget, pods: Sequence[PodRecord]) -> Findings:
    """Findings about rules that grant nothing because no port uses their protocol."""
    kinds = {rule.kind for rule in target.spec.rules}
    protocols = mesh.protocols(pods, target.spec.destination.port)
    if not kinds or not protocols:
        return
    if kinds == {TCPRoute.KIND} and "tcp" not in protocols:
        yield WRONG_PROTOCOL.at(target.key, "spec.rules", "a TCPRoute grants nothing at ports that speak HTTP")
    elif kinds == {HTTPRouteGroup.KIND} and protocols == {"tcp"}:
        yield WRONG_PROTOCOL.at(target.key, "spec.rules", "an HTTPRouteGroup grants nothing at ports that speak TCP")


def _sources(mesh: DescribedMesh, target: TrafficTarget) -> Findings:
    for index, source in enumerate(target.spec.sources):
        where = f"spec.sources[{index}]"
        namespace = source.namespace or target.metadata.namespace
        pods = mesh.pods_of_account(namespace, source.name)
        if not pods:
            message = f"no pod in these manifests runs as service account {namespace}/{source.name}"
            yield SOURCE_SELECTS_NOTHING.at(target.key, where, message)
            continue
        bare = mesh.without_sidecar(pods)
        if bare:
            message = f"{', '.join(bare)} has no sidecar: it cannot prove who it is, and is denied"
            yield NO_SIDECAR.at(target.key, where, message)


def _listed(ports: Sequence[int]) -> str:
    return ", ".join(map(str, ports)) or "none"
