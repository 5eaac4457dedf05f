"""TrafficTargets: whom they protect, and whom they let in."""

from __future__ import annotations

from collections.abc import Sequence

from nginx_mesh.api.smi import HTTPRouteGroup, TCPRoute, TrafficTarget
from nginx_mesh.catalog.policies import destination_account
from nginx_mesh.catalog.records import Workload

from .rules import (
    NO_SIDECAR,
    NO_SOURCES,
    NO_SUCH_PORT,
    SOURCE_NOBODY,
    TARGET_SELECTS_NOTHING,
    WRONG_PROTOCOL,
    Findings,
)
from .world import World


def access(world: World) -> Findings:
    """Of TrafficTargets."""
    for target in world.of(TrafficTarget):
        if not target.spec.sources:
            yield NO_SOURCES.at(target.key, "spec.sources", "is empty: nobody is granted anything")
        if world.has_pods:
            yield from _destination(world, target)
            yield from _sources(world, target)


def _destination(world: World, target: TrafficTarget) -> Findings:
    namespace, account = destination_account(target)
    pods = world.pods_of_account(namespace, account)
    if not pods:
        message = f"no pod among these runs as service account {namespace}/{account}"
        yield TARGET_SELECTS_NOTHING.at(target.key, "spec.destination", message)
        return
    bare = world.without_sidecar(pods)
    if bare:
        message = f"{', '.join(bare)} has no sidecar: nothing is enforced there"
        yield NO_SIDECAR.at(target.key, "spec.destination", message)
    port = target.spec.destination.port
    if port is not None and not any(port in pod.ports for pod in pods):
        declared = sorted({number for pod in pods for number in pod.ports})
        message = f"{port} is no port of {', '.join(pod.key.name for pod in pods)}; declared are {_list(declared)}"
        yield NO_SUCH_PORT.at(target.key, "spec.destination.port", message)
        return
    yield from _protocol(world, target, pods)


def _protocol(world: World, target: TrafficTarget, pods: Sequence[Workload]) -> Findings:
    """Rules that grant nothing at any port, as all of those speak something else."""
    kinds = {rule.kind for rule in target.spec.rules}
    port = target.spec.destination.port
    spoken = {
        protocol
        for pod in pods
        for number, use in world.catalog.topology.ports_of(pod).items()
        if use.declared and port in (None, number)
        for protocol in use.protocols
    }
    if not kinds or not spoken:
        return
    if kinds == {TCPRoute.KIND} and "tcp" not in spoken:
        yield WRONG_PROTOCOL.at(target.key, "spec.rules", "a TCPRoute grants nothing at ports that speak HTTP")
    elif kinds == {HTTPRouteGroup.KIND} and spoken == {"tcp"}:
        yield WRONG_PROTOCOL.at(target.key, "spec.rules", "an HTTPRouteGroup grants nothing at ports that speak TCP")


def _sources(world: World, target: TrafficTarget) -> Findings:
    for index, source in enumerate(target.spec.sources):
        where = f"spec.sources[{index}]"
        namespace = source.namespace or target.metadata.namespace
        pods = world.pods_of_account(namespace, source.name)
        if not pods:
            message = f"no pod among these runs as service account {namespace}/{source.name}"
            yield SOURCE_NOBODY.at(target.key, where, message)
            continue
        bare = world.without_sidecar(pods)
        if bare:
            message = f"{', '.join(bare)} has no sidecar: it cannot prove who it is, and is denied"
            yield NO_SIDECAR.at(target.key, where, message)


def _list(ports: Sequence[int]) -> str:
    return ", ".join(map(str, ports)) or "none"
