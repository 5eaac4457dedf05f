"""Explains a request without sending it: asks the caller's sidecar, then those of the endpoints it may choose."""

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

from .clientsteps import common_steps, handshake, route_steps, share_of, steps_without_sidecar
from .document import Callee, Caller, Destination, Explanation, HttpRequest, Route, Step
from .resolve import (
    KindOf,
    Lookup,
    ResolvedCaller,
    ResolvedService,
    address_of,
    endpoints_behind,
    name_of,
    pod_behind,
    resolve_caller,
    resolve_service,
    source_of,
)
from .serversteps import server_steps
from .steps import malformed_request, mode_object
from .verdicts import combined, deciding_step, steps_of, summary, verdict_of

# So many endpoints of one route are asked, as they usually answer alike.
_MOST_ASKED = 8
_GRPC_HEADERS = (("Content-Type", "application/grpc"), ("TE", "trailers"))


class SidecarExplainer(Protocol):
    """The sidecars of the mesh, which can be asked what they would do."""

    def live(self) -> Mapping[ObjectKey, str]:
        """The pods whose sidecars have had a state, with their uids."""

    async def explain_outgoing(self, pod: ObjectKey, question: Question) -> Outgoing:
        """What the caller's sidecar would do. Raises SidecarUnreachableError and NotUnderstoodError."""

    async def explain_incoming(self, pod: ObjectKey, question: Question) -> Incoming:
        """What the called sidecar would do. Raises SidecarUnreachableError and NotUnderstoodError."""


class ExplainRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The request to explain. `resolve_caller` and `resolve_service` describe the names of `caller` and `service`.

    An empty `method` means GET, or POST for a gRPC service. Headers are [name, value].
    """

    caller: str = msgspec.field(name="from")
    service: str = msgspec.field(name="to")
    namespace: str = "default"
    method: str = ""
    path: str = "/"
    headers: list[tuple[str, str]] = []


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains what would become of requests in a mesh.

    `sidecars` are asked what they would do, and `lookup` finds objects. `kind_of` gives the kind that a resource name
    such as `deploy` means. `now` gives seconds since the epoch.
    """

    catalog: Catalog
    settings: Callable[[], MeshSettings]
    sidecars: SidecarExplainer
    lookup: Lookup
    kind_of: KindOf
    now: Callable[[], float] = time.time

    async def explain(self, wanted: ExplainRequest) -> Explanation:
        """Explain a request. Raises ResolveError and FieldError for one that names or holds what is not valid."""
        caller = resolve_caller(self.catalog, wanted.caller, wanted.namespace, self.kind_of)
        service = resolve_service(self.catalog, self.lookup, wanted.service, wanted.namespace, self.kind_of)
        return await _Evaluation(self, caller, service, _http_request(wanted, service)).explain()


class _Evaluation:
    """Evaluates one request."""

    def __init__(self, mesh: Explainer, caller: ResolvedCaller, service: ResolvedService, request: Request) -> None:
        self._mesh = mesh
        self._catalog = mesh.catalog
        self._settings = mesh.settings()
        self._caller = caller
        self._service = service
        self._request = request
        self._protocol = service.protocol
        self._bypass = self._bypass_reason()
        self._spiffe_id = ""
        self._state_version = 0

    async def explain(self) -> Explanation:
        """The whole explanation."""
        if self._service.address is None:
            nothing = f"{self._service.key} is headless and has no pod that is ready: its name means no address"
            steps, routes = [Step(step="name", outcome="refuse", message=nothing)], list[Route]()
        elif self._bypass:
            steps, routes = await self._without_sidecar()
        else:
            steps, routes = await self._with_sidecar()
        return self._explanation(steps, routes)

    def _bypass_reason(self) -> str:
        """Why the call bypasses the caller's sidecar; "" when it does not."""
        pod, address = self._caller.pod, self._service.address
        if not pod.meshed:
            return f"{name_of(pod)} has none: its calls are plaintext, and prove nothing"
        try:
            ignored = ignore_outgoing_ports(pod.annotations)
        except FieldError:
            ignored = ()
        if address is not None and address.port in ignored:
            return f"calls to port {address.port} pass it by (annotation {IGNORE_OUTGOING_PORTS})"
        return ""

    async def _without_sidecar(self) -> tuple[list[Step], list[Route]]:
        endpoints = [Reached(address=text, tls=False) for text in endpoints_behind(self._catalog, self._service)]
        service = f"{self._service.key.namespace}/{self._service.key.name}:{self._service.port}"
        if self._catalog.topology.service(self._service.key) is None:
            unknown = "the mesh does not know what is behind a Service without a selector"
            sidecar = Step(step="sidecar", message=self._bypass)
            return [sidecar, Step(step="endpoints", outcome="unknown", message=unknown)], []
        steps = steps_without_sidecar(service, len(endpoints), self._bypass)
        if not endpoints:
            return steps, []
        return steps, [await self._route(1.0, service, [], endpoints)]

    async def _with_sidecar(self) -> tuple[list[Step], list[Route]]:
        pod, address = self._caller.pod, self._service.address
        assert address is not None  # noqa: S101 - for the type checker
        if pod.key not in self._mesh.sidecars.live():
            return [_unknown(pod, "has not got its first state yet")], []
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
            return [malformed_request(error.status)], []
        except SidecarUnreachableError as error:
            return [_unknown(pod, f"does not answer: {error}")], []
        self._state_version = answer.version
        if answer.spiffe_id and answer.svid_expires > self._mesh.now():
            self._spiffe_id = answer.spiffe_id
        if answer.destination is not None:
            self._protocol = answer.destination.protocol
        dialled = socket_address(*address)
        mode_by = mode_object(self._settings, pod)
        steps = common_steps(answer, dialled, str(self._service.key), mode_by, grpc=self._grpc)
        if verdict_of(steps) == "refused":
            return steps, []
        if answer.destination is None:
            endpoints = [Reached(address=dialled, tls=False)]
            return steps, [await self._route(1.0, dialled, [], endpoints)]
        return steps, list(await asyncio.gather(*self._routes(answer)))

    def _routes(self, answer: Outgoing) -> Iterator[Coroutine[Any, Any, Route]]:
        for branch in answer.branches:
            share = share_of(answer, branch)
            if share:
                pods = {
                    endpoint.address: name_of(pod)
                    for endpoint in branch.endpoints
                    if (pod := pod_behind(self._catalog, endpoint.address)) is not None
                }
                steps = route_steps(answer, branch, pods, grpc=self._grpc)
                endpoints = branch.endpoints if branch.refusal is None else []
                yield self._route(share, branch.cluster or branch.name, steps, endpoints)

    async def _route(self, share: float, cluster: str, steps: list[Step], endpoints: Sequence[Reached]) -> Route:
        """One route with the steps at its endpoints. Endpoints that failed are asked only when there are no others."""
        if verdict_of(steps) != "allowed":
            return Route(share=share, cluster=cluster, verdict=verdict_of(steps), steps=steps)
        chosen = ([endpoint for endpoint in endpoints if not endpoint.down] or list(endpoints))[:_MOST_ASKED]
        callees = _grouped(await asyncio.gather(*(self._callee(endpoint) for endpoint in chosen)))
        if len(chosen) < len(endpoints) and all(not endpoint.down for endpoint in endpoints):
            steps = [*steps, Step(step="asked", message=f"of {len(endpoints)} endpoints {len(chosen)} were asked")]
        verdict = combined(callee.verdict for callee in callees)
        return Route(share=share, cluster=cluster, verdict=verdict, steps=steps, callees=callees)

    async def _callee(self, endpoint: Reached) -> Callee:
        pod, address = pod_behind(self._catalog, endpoint.address), address_of(endpoint.address)
        if pod is None:
            outside = Step(step="sidecar", outcome="unknown", message="it is no pod of this mesh, and cannot be asked")
            return _single_callee(endpoint.address, [outside])
        name = name_of(pod)
        if not pod.meshed:
            return _single_callee(name, [Step(step="sidecar", message="it has none: nothing is judged there")])
        if address.port in ALWAYS_IGNORED_INCOMING_PORTS or address.port in _ignored(pod):
            passed = f"port {address.port} passes it by: nothing is judged there"
            return _single_callee(name, [Step(step="sidecar", message=passed)])
        if pod.key not in self._mesh.sidecars.live():
            return _single_callee(name, [_unknown(pod, "has not got its first state yet")])
        question = Question(
            direction="inbound",
            ip=address.ip,
            port=address.port,
            source=source_of(self._caller.pod, address),
            carried=self._carried,
            peer=self._spiffe_id if endpoint.tls else None,
            request=self._request if self._bypass else self._request.forwarded(),
        )
        try:
            answer = await self._mesh.sidecars.explain_incoming(pod.key, question)
        except NotUnderstoodError as error:
            return _single_callee(name, [malformed_request(error.status)])
        except SidecarUnreachableError as error:
            return _single_callee(name, [_unknown(pod, f"does not answer: {error}")])
        steps = [handshake(endpoint.spiffe_id, answer, self._mesh.now())] if endpoint.tls else []
        if verdict_of(steps) == "allowed":
            steps += self._server_steps(answer, pod, address.port, tls=endpoint.tls)
        return _single_callee(name, steps, answer)

    def _server_steps(self, answer: Incoming, pod: PodRecord, port: int, *, tls: bool) -> list[Step]:
        effective = {target.target for target in answer.targets}
        without_effect = [
            name
            for target in self._catalog.policies.targets_of((pod.key.namespace, pod.account))
            if target.spec.destination.port in (None, port)
            and (name := f"{target.metadata.namespace}/{target.metadata.name}") not in effective
        ]
        return server_steps(
            answer,
            port,
            mode_object(self._settings, pod),
            self._settings.access_control_mode,
            without_effect,
            tls=tls,
            grpc=self._grpc,
        )

    def _explanation(self, steps: list[Step], routes: list[Route]) -> Explanation:
        caller, service, request = self._caller, self._service, self._request
        verdict = combined(route.verdict for route in routes) if routes else verdict_of(steps)
        every_step = [*steps, *(step for route in routes for step in steps_of(route))]
        return Explanation(
            verdict=verdict,
            summary=summary(verdict, steps, routes),
            deciding=None if verdict == "mixed" else deciding_step(every_step),
            caller=Caller(
                pod=name_of(caller.pod),
                workload=caller.workload,
                pods=caller.pods,
                sidecar=not self._bypass,
                spiffe_id=self._spiffe_id,
                state_version=self._state_version,
            ),
            destination=Destination(
                service=f"{service.key.namespace}/{service.key.name}",
                port=service.port,
                address="" if service.address is None else socket_address(*service.address),
                protocol=self._protocol,
            ),
            request=None
            if self._carried == "tcp"
            else HttpRequest(method=request.method, path=request.path, headers=list(request.headers)),
            steps=steps,
            routes=routes,
        )

    @property
    def _carried(self) -> Carried:
        return "tcp" if self._protocol == "tcp" else "http"

    @property
    def _grpc(self) -> bool:
        return self._carried == "http" and self._request.is_grpc


def _http_request(wanted: ExplainRequest, service: ResolvedService) -> Request:
    """The request as the application would send it. Raises FieldError."""
    request = Request(method=wanted.method or "GET", path=wanted.path, headers=tuple(wanted.headers))
    if service.protocol == "grpc" and not request.header("content-type"):
        headers = (*request.headers, *_GRPC_HEADERS)
        request = msgspec.structs.replace(request, method=wanted.method or "POST", headers=headers)
    request.check()
    return request.with_host(service.host)


def _ignored(pod: PodRecord) -> Sequence[int]:
    try:
        return ignore_incoming_ports(pod.annotations)
    except FieldError:
        return ()


def _unknown(pod: PodRecord, reason: str) -> Step:
    return Step(step="sidecar", outcome="unknown", message=f"the sidecar of {name_of(pod)} {reason}")


def _single_callee(pod: str, steps: list[Step], answer: Incoming | None = None) -> Callee:
    return Callee(
        pod=pod,
        pods=1,
        verdict=verdict_of(steps),
        spiffe_id="" if answer is None else answer.spiffe_id,
        state_version=0 if answer is None else answer.version,
        steps=steps,
    )


def _grouped(callees: Sequence[Callee]) -> list[Callee]:
    """One callee for all that decide alike by the same objects."""
    groups: dict[object, list[Callee]] = {}
    for callee in callees:
        decisions = tuple((step.step, step.outcome, step.object, step.status) for step in callee.steps)
        groups.setdefault(decisions, []).append(callee)
    return [msgspec.structs.replace(group[0], pods=len(group)) for group in groups.values()]
