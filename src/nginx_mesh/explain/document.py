"""An explanation, as `nginx-meshctl explain -o json` prints it."""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal["pass", "refuse", "delay", "divert", "unknown"]
Verdict = Literal["allowed", "refused", "mixed", "unknown"]


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all parts of an explanation."""


class Step(Part, frozen=True, kw_only=True):
    """One decision about the request. `object` is the object that decides, "" when no object does.

    `status` and `grpc_status` are those of the response to a request that is refused.
    """

    step: str
    outcome: Outcome = "pass"
    message: str
    object: str = ""
    status: int | None = None
    grpc_status: int | None = None


class Callee(Part, frozen=True, kw_only=True):
    """The decisions at a called pod, which stands for `pods` pods that decide alike.

    `spiffe_id` is that of its sidecar's SVID. `state_version` is the version of its sidecar's state, 0 when the sidecar
    was not asked.
    """

    pod: str
    pods: int
    verdict: Verdict
    spiffe_id: str = ""
    state_version: int = 0
    steps: list[Step]


class Route(Part, frozen=True, kw_only=True):
    """The cluster that a share (0 to 1) of such requests goes to: one backend of a split, or the only one."""

    share: float
    cluster: str
    verdict: Verdict
    steps: list[Step]
    callees: list[Callee] = msgspec.field(name="called", default_factory=list)


class Caller(Part, frozen=True, kw_only=True):
    """The calling pod, which stands for all `pods` of the workload that was named.

    `state_version` is the version of its sidecar's state, 0 when the sidecar was not asked.
    """

    pod: str
    workload: str
    pods: int
    sidecar: bool
    spiffe_id: str = ""
    state_version: int = 0


class Destination(Part, frozen=True, kw_only=True):
    """The Service that is called, and the address that the caller dials for it."""

    service: str
    port: int
    address: str
    protocol: str


class HttpRequest(Part, frozen=True, kw_only=True):
    """The request; headers as [name, value]."""

    method: str
    path: str
    headers: list[tuple[str, str]]


class Explanation(Part, frozen=True, kw_only=True):
    """The answer to an ExplainRequest.

    `deciding` is the step that refuses or delays the request, or of which the outcome is unknown. `request` is None for
    TCP.
    """

    verdict: Verdict
    summary: str
    deciding: Step | None
    caller: Caller
    destination: Destination
    request: HttpRequest | None
    steps: list[Step]
    routes: list[Route] = msgspec.field(name="ways")
