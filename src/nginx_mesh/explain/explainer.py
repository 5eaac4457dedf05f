"""Follows a request that nobody sends: asks the caller's sidecar, then those of the pods that it would choose from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from nginx_mesh.api.annotations import (
    ALWAYS_IGNORED_INCOMING_PORTS,
    IGNORE_OUTGOING_PORTS,
    ignore_incoming_ports,
    ignore_outgoing_ports,
)
from nginx_mesh.api.errors import FieldError
from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.addresses import socket_address
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.records import PodRecord
from nginx_mesh.protocol.control import SidecarUnreachableError
from nginx_mesh.protocol.explain import Carried, Incoming, NotUnderstoodError, Outgoing, Question, Reached, Request

from . import steps as words
from .document import Asked, Called, Caller, Destination, Explanation, Step, Way
from .places import (
    KindOf,
    Lookup,
    Origin,
    Target,
    address_of,
    endpoints_behind,
    find_origin,
    find_target,
    name_of,
    pod_behind,
    source_of,
)

# Endpoints of one way that are asked: they answer alike as a rule.
_MOST_ASKED = 8
_GRPC = (("Content-Type", "application/grpc"), ("TE", "trailers"))


class Sidecars(Protocol):
    """The sidecars of the mesh, which can be asked what they would do."""

    def live(self) -> Mapping[ObjectKey, str]:
        """The pods whose sidecars have had a state, with their uids."""

    async def explain_outgoing(self, pod: ObjectKey, question: Question) -> Outgoing:
        """What a caller's sidecar would do. Raises SidecarUnreachableError and NotUnderstoodError."""

    async def explain_incoming(self, pod: ObjectKey, question: Question) -> Incoming:
        """What a called sidecar would do. Raises SidecarUnreachableError and NotUnderstoodError."""


class Inquiry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is to be explained. Names are as `places.find_origin` and `find_target` take them.

    An empty `method` is GET, and POST where gRPC is called; headers are [name, value].
    """

    origin: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    namespace: str = "default"
    method: str = ""
    path: str = "/"
    headers: list[tuple[str, str]] = []


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains what would become of requests in a mesh.

    `sidecars` are asked. `lookup` finds objects. `kind_of` gives the
    kind that a resource name means, as `deploy`. `now` is seconds since the epoch.
    """

    catalog: Catalog
    settings: Callable[[], MeshSettings]
    sidecars: Sidecars
    lookup: Lookup
    kind_of: KindOf
    now: Callable[[], float] = time.time

    async def explain(self, inquiry: Inquiry) -> Explanation:
        """What would happen. Raises PlaceError and FieldError for what cannot be asked."""
        origin = find_origin(self.catalog, inquiry.origin, inquiry.namespace, self.kind_of)
        target = find_target(self.catalog, self.lookup, inquiry.target, inquiry.namespace, self.kind_of)
        return await _Journey(self, origin, target, _request(inquiry, target)).explain()


class _Journey:
    """One request's way."""

    def __init__(self, mesh: Explainer, origin: Origin, target: Target, request: Request) -> None:
        self._mesh = mesh
        self._catalog = mesh.catalog
        self._settings = mesh.settings()
        self._origin = origin
        self._target = target
        self._request = request
        self._protocol = target.protocol
        self._bypass = self._why_bypassed()
        self._identity = ""
        self._version = 0

    async def explain(self) -> Explanation:
        """The whole of it."""
        if self._target.address is None:
            nothing = f"{self._target.service} is headless and has no pod that is ready: its name means no address"
            steps, ways = [Step(step="name", outcome="refuse", message=nothing)], list[Way]()
        elif self._bypass:
            steps, ways = await self._without_sidecar()
        else:
            steps, ways = await self._with_sidecar()
        return self._explanation(steps, ways)

    def _why_bypassed(self) -> str:
        """Why no sidecar of the caller sees the call; "" when one does."""
        pod, address = self._origin.pod, self._target.address
        if not pod.meshed:
            return f"{name_of(pod)} has none: its calls are plaintext, and prove nothing"
        try:
            ignored = ignore_outgoing_ports(pod.annotations)
        except FieldError:
            ignored = ()
        if address is not None and address.port in ignored:
            return f"calls to port {address.port} pass it by (annotation {IGNORE_OUTGOING_PORTS})"
        return ""

    async def _without_sidecar(self) -> tuple[list[Step], list[Way]]:
        endpoints = [Reached(address=text, tls=False) for text in endpoints_behind(self._catalog, self._target)]
        service = f"{self._target.service.namespace}/{self._target.service.name}:{self._target.port}"
        if self._catalog.topology.service(self._target.service) is None:
            unknown = "the mesh does not know what is behind a Service without a selector"
            sidecar = Step(step="sidecar", message=self._bypass)
            return [sidecar, Step(step="endpoints", outcome="unknown", message=unknown)], []
        steps = words.without_sidecar(service, len(endpoints), self._bypass)
        if not endpoints:
            return steps, []
        return steps, [await self._way(1.0, service, [], endpoints)]

    async def _with_sidecar(self) -> tuple[list[Step], list[Way]]:
        pod, address = self._origin.pod, self._target.address
        assert address is not None  # noqa: S101 - for the type checker
        if pod.key not in self._mesh.sidecars.live():
            return [_silent(pod, "has not got its first state yet")], []
        question = Question(
            direction="outbound",
            ip=address.ip,
            port=address.port,
            source=source_of(pod, address),
            carried=self._carried,
            request=self._request,
        )
        try:
            answer = await self._mesh.sidecars.explain_outgoing(pod.key, question)
        except NotUnderstoodError as error:
            return [words.not_understood(error.status)], []
        except SidecarUnreachableError as error:
            return [_silent(pod, f"does not answer: {error}")], []
        self._version = answer.version
        if answer.spiffe_id and answer.svid_expires > self._mesh.now():
            self._identity = answer.spiffe_id
        if answer.destination is not None:
            self._protocol = answer.destination.protocol
        dialled = socket_address(*address)
        mode_by = words.mode_object(self._settings, pod)
        steps = words.outgoing(answer, dialled, str(self._target.service), mode_by, grpc=self._grpc)
        if words.verdict(steps) == "refused":
            return steps, []
        if answer.destination is None:
            reached = [Reached(address=dialled, tls=False)]
            return steps, [await self._way(1.0, dialled, [], reached)]
        return steps, list(await asyncio.gather(*self._ways(answer)))

    def _ways(self, answer: Outgoing) -> Iterator[Coroutine[Any, Any, Way]]:
        for branch in answer.branches:
            share = words.share(answer, branch)
            if share:
                names = {
                    endpoint.address: name_of(pod)
                    for endpoint in branch.endpoints
                    if (pod := pod_behind(self._catalog, endpoint.address)) is not None
                }
                steps = words.way(answer, branch, names, grpc=self._grpc)
                reached = branch.endpoints if branch.refusal is None else []
                yield self._way(share, branch.cluster or branch.name, steps, reached)

    async def _way(self, share: float, cluster: str, steps: list[Step], endpoints: Sequence[Reached]) -> Way:
        """One way with what happens at its end: at endpoints that are not passed over, if there are any."""
        if words.verdict(steps) != "allowed":
            return Way(share=share, cluster=cluster, verdict=words.verdict(steps), steps=steps)
        chosen = ([endpoint for endpoint in endpoints if not endpoint.down] or list(endpoints))[:_MOST_ASKED]
        called = _grouped(await asyncio.gather(*(self._called(endpoint) for endpoint in chosen)))
        if len(chosen) < len(endpoints) and all(not endpoint.down for endpoint in endpoints):
            steps = [*steps, Step(step="asked", message=f"of {len(endpoints)} endpoints {len(chosen)} were asked")]
        verdict = words.together(each.verdict for each in called)
        return Way(share=share, cluster=cluster, verdict=verdict, steps=steps, called=called)

    async def _called(self, endpoint: Reached) -> Called:
        pod, address = pod_behind(self._catalog, endpoint.address), address_of(endpoint.address)
        if pod is None:
            outside = Step(step="sidecar", outcome="unknown", message="it is no pod of this mesh, and cannot be asked")
            return _end(endpoint.address, [outside])
        name = name_of(pod)
        if not pod.meshed:
            return _end(name, [Step(step="sidecar", message="it has none: nothing is judged there")])
        if address.port in ALWAYS_IGNORED_INCOMING_PORTS or address.port in _ignored(pod):
            passed = f"port {address.port} passes it by: nothing is judged there"
            return _end(name, [Step(step="sidecar", message=passed)])
        if pod.key not in self._mesh.sidecars.live():
            return _end(name, [_silent(pod, "has not got its first state yet")])
        question = Question(
            direction="inbound",
            ip=address.ip,
            port=address.port,
            source=source_of(self._origin.pod, address),
            carried=self._carried,
            peer=self._identity if endpoint.tls else None,
            request=self._request if self._bypass else self._request.forwarded(),
        )
        try:
            answer = await self._mesh.sidecars.explain_incoming(pod.key, question)
        except NotUnderstoodError as error:
            return _end(name, [words.not_understood(error.status)])
        except SidecarUnreachableError as error:
            return _end(name, [_silent(pod, f"does not answer: {error}")])
        steps = words.handshake(endpoint.spiffe_id, answer, self._mesh.now()) if endpoint.tls else []
        if words.verdict(steps) == "allowed":
            steps += self._judged(answer, pod, address.port, tls=endpoint.tls)
        return _end(name, steps, answer)

    def _judged(self, answer: Incoming, pod: PodRecord, port: int, *, tls: bool) -> list[Step]:
        heard = {target.target for target in answer.targets}
        voiceless = [
            name
            for target in self._catalog.policies.targets_of((pod.key.namespace, pod.account))
            if target.spec.destination.port in (None, port)
            and (name := f"{target.metadata.namespace}/{target.metadata.name}") not in heard
        ]
        return words.incoming(
            answer,
            port,
            words.mode_object(self._settings, pod),
            self._settings.access_control_mode,
            voiceless,
            tls=tls,
            grpc=self._grpc,
        )

    def _explanation(self, steps: list[Step], ways: list[Way]) -> Explanation:
        origin, target, request = self._origin, self._target, self._request
        verdict = words.verdict(steps) if not ways else words.together(way.verdict for way in ways)
        everything = [*steps, *(step for way in ways for step in words.steps_of(way))]
        return Explanation(
            verdict=verdict,
            summary=words.summary(verdict, steps, ways),
            deciding=None if verdict == "mixed" else words.deciding(everything),
            caller=Caller(
                pod=name_of(origin.pod),
                workload=origin.workload,
                pods=origin.pods,
                sidecar=not self._bypass,
                spiffe_id=self._identity,
                state_version=self._version,
            ),
            destination=Destination(
                service=f"{target.service.namespace}/{target.service.name}",
                port=target.port,
                address="" if target.address is None else socket_address(*target.address),
                protocol=self._protocol,
            ),
            request=None
            if self._carried == "tcp"
            else Asked(method=request.method, path=request.path, headers=list(request.headers)),
            steps=steps,
            ways=ways,
        )

    @property
    def _carried(self) -> Carried:
        return "tcp" if self._protocol == "tcp" else "http"

    @property
    def _grpc(self) -> bool:
        return self._carried == "http" and self._request.is_grpc


def _request(inquiry: Inquiry, target: Target) -> Request:
    """The request as the application would send it."""
    request = Request(method=inquiry.method or "GET", path=inquiry.path, headers=tuple(inquiry.headers))
    if target.protocol == "grpc" and not request.header("content-type"):
        headers = (*request.headers, *_GRPC)
        request = msgspec.structs.replace(request, method=inquiry.method or "POST", headers=headers)
    request.check()
    return request.with_host(target.host)


def _ignored(pod: PodRecord) -> Sequence[int]:
    try:
        return ignore_incoming_ports(pod.annotations)
    except FieldError:
        return ()


def _silent(pod: PodRecord, why: str) -> Step:
    return Step(step="sidecar", outcome="unknown", message=f"the sidecar of {name_of(pod)} {why}")


def _end(pod: str, steps: list[Step], answer: Incoming | None = None) -> Called:
    return Called(
        pod=pod,
        pods=1,
        verdict=words.verdict(steps),
        spiffe_id="" if answer is None else answer.spiffe_id,
        state_version=0 if answer is None else answer.version,
        steps=steps,
    )


def _grouped(called: Sequence[Called]) -> list[Called]:
    """The first of each that end alike, decided by the same."""
    groups: dict[object, list[Called]] = {}
    for each in called:
        alike = tuple((step.step, step.outcome, step.object, step.status) for step in each.steps)
        groups.setdefault(alike, []).append(each)
    return [msgspec.structs.replace(group[0], pods=len(group)) for group in groups.values()]
