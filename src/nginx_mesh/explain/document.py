"""An explanation, as `nginx-meshctl explain -o json` prints it."""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal["pass", "refuse", "delay", "divert", "unknown"]
Verdict = Literal["allowed", "refused", "mixed", "unknown"]


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all parts of an explanation."""


class Step(Part, frozen=True, kw_only=True):
    """One decision. `object` is what decides, "" where that is no object; `status` what a refusal answers with."""

    step: str
    outcome: Outcome = "pass"
    message: str
    object: str = ""
    status: int | None = None
    grpc_status: int | None = None


class Called(Part, frozen=True, kw_only=True):
    """What happens at a called pod, and at `pods` of them alike. `spiffe_id` is what its sidecar proves.

    `state_version` is that of the state which its sidecar has, 0 where none was asked.
    """

    pod: str
    pods: int
    verdict: Verdict
    spiffe_id: str = ""
    state_version: int = 0
    steps: list[Step]


class Way(Part, frozen=True, kw_only=True):
    """Where a share (0 to 1) of such requests goes, as one branch of a split or all of them."""

    share: float
    cluster: str
    verdict: Verdict
    steps: list[Step]
    called: list[Called] = []


class Caller(Part, frozen=True, kw_only=True):
    """The pod that calls: of `pods` of the workload that was named, this one stands for all.

    `state_version` is that of the state which its sidecar has, 0 where none was asked.
    """

    pod: str
    workload: str
    pods: int
    sidecar: bool
    spiffe_id: str = ""
    state_version: int = 0


class Destination(Part, frozen=True, kw_only=True):
    """What is dialled."""

    service: str
    port: int
    address: str
    protocol: str


class Asked(Part, frozen=True, kw_only=True):
    """The request; headers as [name, value]."""

    method: str
    path: str
    headers: list[tuple[str, str]]


class Explanation(Part, frozen=True, kw_only=True):
    """All of it. `deciding` is the step that refuses or delays, `request` None for TCP."""

    verdict: Verdict
    summary: str
    deciding: Step | None
    caller: Caller
    destination: Destination
    request: Asked | None
    steps: list[Step]
    ways: list[Way]
